"""The commands ``cfnseg export``, ``push`` and ``bench deploy``; importing this module imports
neither torch nor models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import FlagCreatePairsOff, Positional

Flag = FlagCreatePairsOff[bool]


def export(
    weights: Positional[Path],
    *,
    format: Literal["onnx", "torch"] = "onnx",
    out: Path | None = None,
    size: tuple[int, int] | None = None,
    half: Flag = False,
    int8: Flag = False,
    dataset: str = "",
    root: str = "",
    split: str = "val",
    images: int = 50,
    license: str = "",
) -> None:
    """Write one file that takes a photograph and gives its mask; print how it agrees and its speed.

    Input: image (N, H, W, 3) uint8 RGB. Outputs: mask (N, H, W) uint8 train ids, confidence
    (N, H, W) float32, logits. Normalisation, test scale, padding and upsampling are inside.

    Args:
        weights: a weights file of segmentation.
        format: onnx, or torch: a program of torch.export (.pt2), which loads without cfnseg.
        out: the new file (None = next to the weights).
        size: height and width of the images that it takes (None = any).
        half: compute the network in float16, for GPUs.
        int8: convolutions in int8, calibrated on training images (onnx).
        dataset: what it is compared on ("" = what the weights were trained on).
        root: the data set's folder ("" = its usual place under data/).
        split: of the data set.
        images: so many are compared, and calibrate.
        license: of the model, for the file's metadata.
    """
    from cfnseg.export.exporting import export_weights

    export_weights(
        weights,
        out,
        format,
        half=half,
        int8=int8,
        size=size,
        dataset=dataset,
        root=root,
        split=split,
        images=images,
        licence=license,
    )


def push(
    weights: Positional[Path],
    repo: Positional[str],
    *,
    private: Flag = False,
    license: str = "",
    dry_run: Path | None = None,
) -> None:
    """Upload weights with a model card to the Hugging Face Hub; others load hf:user/name.

    One commit: WEIGHTS as model.safetensors, and README.md, the card: scores, classes, commands.

    Log in before: hf auth login, or the token in HF_TOKEN. It needs the permission to write.

    Args:
        weights: a weights file of cfnseg. The card takes scores from the reports next to it, and
            the command of the training from its run folder.
        repo: user/name, made if it does not exist. What it has under the two names is replaced,
            and stays in its history.
        private: make it a private repository.
        license: the hub's identifier, such as cc-by-nc-4.0; the licence of the data may decide.
        dry_run: write both files into this folder, and send nothing.
    """
    from cfnseg.export.hub import push_to_hub, write_page

    if dry_run:
        write_page(dry_run, weights, repo, license)
    else:
        push_to_hub(weights, repo, private=private, license=license)


def bench_deploy(
    weights: Positional[Path | None] = None,
    *,
    size: tuple[int, int] = (360, 480),
    rounds: int = 15,
    compile: bool = True,
    out: Path = Path("runs/bench_deploy"),
) -> None:
    """Time one image by torch, torch.compile, onnxruntime, its int8 and OpenVINO, on the CPU.

    Prints a table and writes deploy.md. OMP_NUM_THREADS sets the threads of all.

    Args:
        weights: a weights file of segmentation (None = the model that ships).
        size: height and width of the image.
        rounds: timed runs of each, interleaved.
        compile: measure torch.compile too.
        out: the table's folder.
    """
    from cfnseg.export.latency import time_ways

    print(time_ways(weights, size, rounds, compile, out))

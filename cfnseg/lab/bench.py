"""The lab's commands: `cfnseg bench ops | models | step | scoring | ablation | encodings`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro


def bench_ops(
    *,
    ops: tuple[Literal["lc_fuse", "cross_entropy", "argmax"], ...] = ("lc_fuse", "cross_entropy", "argmax"),
    batches: tuple[int, ...] = (8,),
    scale: tuple[float, ...] = (1.0,),
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    compile: bool = False,
    rounds: int = 9,
    out: Path = Path("runs/bench_ops"),
) -> None:
    """Fusion, loss and class maps against the composition of torch operations.

    Prints one table and writes ops.md and ops.png. Runs on a GPU where there is one, else on the CPU.

    Args:
        ops: what is measured.
        batches: images of lc_fuse to sweep; the dense operations take a quarter of them, at least 1.
        scale: factors on the sizes (1: 128x128 maps; masks of 512x1024 with 19 classes and 512x512 with 150).
        dtype: of branches and logits.
        compile: measure torch.compile of the eager composition as well.
        rounds: how often each time is taken, interleaved.
        out: the folder of the files.
    """
    import torch

    from cfnseg.lab.op_speed import cases, measure, write_results

    device, kind = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, dtype)
    rows = [row for case in cases(ops, batches, scale) for row in measure(case, device, kind, rounds, compile)]
    print(write_results(rows, device, kind, out))


def bench_models(
    *,
    models: tuple[str, ...] = ("cfn", "plain", "fcn", "unet", "fpn", "deeplabv3plus", "upernet", "segformer", "lraspp"),
    encoder: str = "tf_efficientnet_lite0",
    sizes: tuple[tuple[int, int], ...] = ((360, 480),),
    batches: tuple[int, ...] = (8,),
    classes: int = 19,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    compile: bool = False,
    rounds: int = 7,
    out: Path = Path("runs/bench_models"),
) -> None:
    """Training step and inference of CFN, baselines and decoders over the same bare encoder.

    Prints one table and writes models.md, models.json and models.png. Runs on a GPU where there is one.

    Args:
        models: names as model.name has them.
        encoder: timm backbone of all of them.
        sizes: (H, W) pairs to sweep.
        batches: numbers of images to sweep.
        classes: C.
        precision: arithmetic on a GPU, as train.precision; a CPU has float32.
        compile: measure each compiled (torch.compile) as well.
        rounds: how often each time is taken, interleaved with the encoder's.
        out: the folder of the files.
    """
    from cfnseg.errors import UserError
    from cfnseg.lab.model_speed import cases, measure, write_results

    rows = []
    for case in cases(models, sizes, batches, compile):
        print(f"== {case}", flush=True)
        rows.append(measure(case, encoder, classes, precision, rounds))
        text = write_results(rows, encoder, out)
    print(text)
    if failed := sum("error" in row for row in rows):
        raise UserError(f"{failed} of {len(rows)} cases failed, see the table")


def bench_step(
    *,
    size: tuple[int, int] = (1024, 2048),
    crop: tuple[int, int] = (512, 1024),
    samples: int = 200,
    updates: int = 50,
) -> None:
    """Training samples and parameter updates, each in two ways, interleaved; prints times and ratios.

    Args:
        size: height and width of the image.
        crop: height and width of the crop.
        samples: how many, with scales of 0.5 to 2 and colour jitter of 0.5.
        updates: how many.
    """
    from cfnseg.lab.pipeline_speed import line, time_samples, time_updates

    print(line("a sample", ("resize, then crop", "cut, then resize"), time_samples(size, crop, samples)))
    for name in ("adamw", "sgd"):
        times, tensors = time_updates(name, updates)
        print(line(f"{name}, {tensors} tensors", ("default", "fused"), times))


def bench_scoring(
    *,
    maps: int = 500,
    height: int = 1024,
    width: int = 2048,
    workers: int = 2,
    rounds: int = 3,
    details: bool = False,
) -> None:
    """The time to score mask files over the time to decode them, with Cityscapes' 19 classes.

    Args:
        maps: pairs of truth and prediction; 20 pairs of files are used again and again.
        height, width: of a map in pixels.
        workers: processes, for scoring and decoding alike.
        rounds: the median of so many ratios is taken.
        details: count boundaries, trimaps and sizes too.
    """
    import tempfile
    import time

    import numpy as np

    from cfnseg.lab.pipeline_speed import drawn_maps, measure

    with tempfile.TemporaryDirectory() as folder:
        pairs = drawn_maps(Path(folder), 20, height, width)
        times = [measure(pairs, maps, workers, details, time.perf_counter) for _ in range(rounds)]
    ratio = np.median([score / decode for decode, score in times])
    decode, score = np.median(times, 0) / maps * 1000
    print(
        f"{maps} maps of {height} x {width}, {workers} processes: decoding both PNGs {decode:.1f} ms a map, "
        f"scoring {score:.1f} ms (reading included), ratio {ratio:.2f}"
    )


def ablation(
    suite: tyro.conf.Positional[str],
    *,
    seeds: int = 3,
    root: str = "",
    out: Path | None = None,
    only: tuple[str, ...] = (),
    table_only: bool = False,
) -> None:
    """Train and score each system and seed of a suite that has no result yet; writes table.md and plot.png.

    Continues where it stopped. Several processes share the runs, one for each GPU: set CUDA_VISIBLE_DEVICES.

    Args:
        suite: a config file that defines a ``suite``, or a recipe's name such as ablation_camvid.
        seeds: seeds 0, 1, ... of each system.
        root: the data set's folder ("" = as in the suite).
        out: the folder of runs, results and table (None = runs/<suite>).
        only: these systems alone.
        table_only: train nothing, write the table of what is finished.
    """
    from cfnseg.lab.ablation import finished, load_suite, run_suite
    from cfnseg.lab.ablation_table import write_table

    loaded = load_suite(suite)
    folder = out or Path("runs") / loaded.name
    results = finished(loaded, folder, seeds, list(only)) if table_only else run_suite(loaded, folder, seeds, root, list(only))
    print(write_table(loaded, results, folder))


def encodings(
    weights: tyro.conf.Positional[Path],
    *,
    root: str = "",
    train_images: int = 5000,
    test_images: int = 5000,
    stage: int = 1,
    dimensions: int = 64,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Linear-SVM accuracy and retrieval mAP of a stage's codes and of the net's own fused feature.

    Args:
        weights: of a classification CFN.
        root: the data set that it was trained on.
        train_images: images that the encoders and the SVM are fitted to.
        test_images: images that are scored; 5000 are those that configs/cifar10_cfn.py holds out.
        stage: index of the stage whose places are the local descriptors.
        dimensions: of the descriptors after PCA.
        seed: of k-means, mixtures and SVM.
        out: a file for the table as well.
    """
    from cfnseg.lab.encodings import compare_on_weights, markdown_table
    from cfnseg.report.text import write_text

    table = markdown_table(compare_on_weights(weights, root, train_images, test_images, stage, dimensions, seed))
    print(table)
    if out:
        write_text(out, table)

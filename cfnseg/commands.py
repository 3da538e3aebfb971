"""The functions behind ``cfnseg COMMAND``: a parameter is an option, its docstring the help.

Imports that take seconds are inside the functions; --help needs none of them.
"""

from __future__ import annotations

import functools
import os
import shlex
import signal
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import FlagConversionOff, FlagCreatePairsOff, OmitArgPrefixes, Positional, Suppress

from cfnseg import shipped
from cfnseg.config import Config, SegmentationData
from cfnseg.errors import Stopped, UserError, lacking
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.streams import MAIN, leave_at_once, own_command

Settings = Annotated[FlagConversionOff[Config], tyro.conf.arg(name="")]
Flag = FlagCreatePairsOff[bool]
TRAIN = {
    "pixel": "tools/train_seg.py or cfnseg train",
    "image": "tools/train_cls.py or cfnseg classify",
}


def train(config: Settings, *, resume: Flag = False) -> None:
    """Train a segmentation model; keep the best weights and report on them.

    RECIPE is a name that `cfnseg recipes` lists, or a config file. An option overrides a setting.

    A first run: cfnseg train shapes_cfn

    Data of your own: cfnseg train shapes_cfn --data.name folder --data.root DIR

    An annotation tool's export: cfnseg train shapes_cfn --data.name labelme --data.root DIR

    Several GPUs: torchrun --nproc-per-node N -m cfnseg train RECIPE

    Args:
        resume: continue the run in <runs>/<name>, stopped or finished.
    """
    train_level("pixel", config, resume)


def classify(config: Settings, *, resume: Flag = False) -> None:
    """Train a classification model; keep the best weights and report on them.

    RECIPE is a name that `cfnseg recipes` lists, or a config file. An option overrides a setting.

    For example: cfnseg classify cifar10_cfn_short --data.download True

    Args:
        resume: continue the run in <runs>/<name>, stopped or finished.
    """
    train_level("image", config, resume)


def train_level(level: Literal["pixel", "image"], config: Config, resume: bool) -> None:
    """Train, and print what came of it. Raises UserError if the config is of the other level."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave_at_once)  # until training takes over nothing can be lost
    if config.model.level != level:
        own = config.model.level
        raise UserError(f"{config.name} has model.level {own}; train it with {TRAIN[own]}", code=2)
    from cfnseg.training.hardware import leave_processes
    from cfnseg.workflows import train as start

    try:
        folder = start(config, resume)
    except Stopped as stopped:
        if MAIN:
            again = shlex.join([*(w for w in own_command() if w != "--resume"), "--resume"])
            print(
                f"{stopped} and saved; continue with the same command and --resume: {again}",
                flush=True,
            )
        raise
    leave_processes()
    if MAIN:
        print(f"weights: {folder / 'best.safetensors'}")
        print(f"report:  {folder / 'report' / 'report.html'}")


def evaluate(
    weights: Positional[Path | None] = None,
    *,
    predictions: Path | None = None,
    dataset: str = "",
    root: str = "",
    split: str = "",
    out: Path | None = None,
    workers: int = 2,
    device: str = "auto",
    explain_metric: Flag = False,
    pictures: Flag = True,
    inference: OmitArgPrefixes[Inference] = PLAIN,
    level: Suppress[str] = "",
) -> None:
    """Score weights, or masks of any program; print the table, write report.json, .md and .html.

    Args:
        weights: a weights file of cfnseg, of segmentation or classification; or
            hf:user/name[@revision][/file] of the Hugging Face Hub.
        predictions: a folder of masks <image name>.png with raw ids, in place of weights.
        dataset: voc, voc_aug, cityscapes, camvid, coco, coco_voc, coco_stuff, ade20k, folder,
            shapes, or an export: coco_json, labelme, cvat, labelstudio, via, yolo, supervisely,
            masks; for classification cifar10, cifar100 or image_folder ("" = what the weights
            were trained on).
        root: the data set's folder, or zip ("" = its usual place under data/).
        split: the split to score ("" = val, for classification test).
        out: the report's folder ("" = next to the weights or masks; of the hub: here).
        workers: processes that read, and count masks.
        device: auto, cpu or cuda.
        explain_metric: add what other libraries would call mIoU, and why.
        pictures: show the worst and best images on the page; it has no copy of the data without.
        inference: windows and views, with weights of segmentation.
        level: pixel or image: what the weights must be ("" = either).
    """
    from cfnseg.workflows import score_predictions, score_weights

    if (weights is None) == (predictions is None):
        raise UserError("give either a weights file or --predictions DIR", code=2)
    if weights:
        score_weights(
            weights,
            dataset,
            root,
            split,
            out,
            workers,
            device,
            inference,
            explain_metric,
            pictures,
            level,
        )
    elif predictions:
        score_predictions(
            predictions, dataset, root, split or "val", out, workers, explain_metric, pictures
        )


eval_seg = functools.partial(evaluate, level="pixel")  # tools/eval_seg.py
eval_cls = functools.partial(evaluate, level="image")  # tools/eval_cls.py


def infer(
    paths: Positional[tuple[Path, ...]],
    *,
    weights: Path | None = None,
    out: Path = Path("out"),
    device: str = "auto",
    inference: OmitArgPrefixes[Inference] = PLAIN,
    compile: bool = False,
    explain: Flag = False,
    save_confidence: Flag = False,
    save_probabilities: Flag = False,
    smooth: float = 0.0,
    frames: int | None = None,
) -> int:
    """Write <stem>_mask.png (palette PNG of raw ids) and <stem>_overlay.jpg; print the classes.

    Of a GeoTIFF the mask is <stem>_mask.tif, with the same georeference. Of sigmoid outputs, write
    <stem>/<class>.png, 0 and 255, in place of the mask.

    Of a clip, write <stem>_masks/000000.png and so on, and <stem>_overlay.mp4. Stopped, the same
    command goes on where it was. It needs PyAV: pip install "cfnseg[video]"

    Args:
        paths: images, and folders: the images directly in them, earlier results left out; clips by
            their own names; a camera by its index, e.g. 0, which is read until Ctrl-C.
        weights: a weights file of cfnseg, hf:user/name[@revision][/file] of the Hugging Face Hub,
            or a file of cfnseg export (None = the model that ships).
        out: the folder of the masks; it may lie inside a folder of images, but not be one of
            ``paths``. Where images share a stem, suffix or folder tell their results apart.
        device: auto, cpu or cuda.
        inference: windows, views and precision.
        compile: torch.compile the network: slow for each new size, then faster on a GPU.
        explain: write <stem>_explain.jpg as well: which side branch decided, at every pixel and
            for each class. For a CFN, without --flip and several --scales.
        save_confidence: write <stem>_confidence.png: each pixel's probability, 8-bit grey, 255 = 1.
        save_probabilities: write <stem>_probabilities.npy: of all classes, (C, H, W) float16.
        smooth: of clips: average each pixel's probabilities over the frames; the share, 0 up to
            below 1, that the frames before have in it.
        frames: of clips and cameras: read so many.
    """
    from cfnseg.inference.image_files import Extra
    from cfnseg.inference.sources import infer_files

    weights = weights or weights_that_ship("--weights")
    extra = Extra(explain, save_confidence, save_probabilities)
    failed = infer_files(paths, weights, out, device, inference, compile, extra, smooth, frames)
    return int(failed > 0)


def weights_that_ship(option: str) -> Path:
    """The weights for who gave none, with a line on them; ``option`` would give others."""
    weights = shipped.shipped_weights()
    print(
        f"no {option}: {weights.name} is used, trained on {shipped.WEIGHTS[weights]}; "
        "others: data/weights in the repository, runs/<name>/best.safetensors of a run"
    )
    return weights


def demo(
    weights: Positional[Path | None] = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
) -> None:
    """Serve a web page that segments what visitors drop on it, or take with the camera.

    It shows mask, legend, confidence, and what each side branch of a CFN adds at a pixel that one
    clicks. Images stay in memory, and only while they are computed.

    Args:
        weights: a weights file of cfnseg (None = the model that ships).
        host: the address to listen at; 0.0.0.0 shares the demo in the network, with anybody.
        port: its port; 0 takes a free one.
        device: auto, cpu or cuda.
    """
    try:
        from cfnseg.demo.server import serve
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise lacking("the demo", "demo") from None
    serve(weights or weights_that_ship("WEIGHTS"), host, port, device)


def compare(run_a: Positional[Path], run_b: Positional[Path], *, out: Path | None = None) -> None:
    """Print both scores, their difference with its interval, and what differs; write the page.

    Args:
        run_a: a run folder, a report's folder, or a report.json.
        run_b: another; differences are B - A.
        out: folder of compare.json, .md and .html ("" = compare_with_<A> in the folder of B).
    """
    from cfnseg.report.comparison import compare as compare_runs

    compare_runs(run_a, run_b, out)


def prepare(name: Positional[str], *, root: str = "") -> None:
    """Download what is missing, convert it, check the official counts, print the training command.

    Interrupted, the same command continues. Archives that you put into the folder are used.

    Args:
        name: voc, voc_aug (VOC + SBD), cityscapes (asks for your account), camvid, coco (80 things
            and background), coco_voc (VOC's 21 classes), coco_stuff (171 classes) or ade20k.
        root: the data set's folder ("" = its usual place under data/).
    """
    from cfnseg.data.download.official import prepare as prepare_data

    prepare_data(name, root)


def convert(
    format: Positional[str],
    source: Positional[Path],
    out: Positional[Path],
    *,
    val: float = 0.2,
    group_by: str = "",
    classes: Path | None = None,
    images: Path | None = None,
    link: Flag = False,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Turn an annotation tool's export into a folder data set, and show what was understood of it.

    OUT gets images/, labels/, classes.txt, and the page convert.html. It is whole or absent.

    Args:
        format: coco, labelme, cvat, labelstudio, via, yolo, supervisely, masks (finished masks), or
            auto, which looks.
        source: the export's folder or file.
        out: a new or empty folder.
        val: share of the images for validation, chosen by their names; an export's own splits stay.
        group_by: keep images together whose names begin alike, such as frames of a video: "_" = up
            to the first underscore, "_*_" = the second, "????" = four characters.
        classes: a classes.txt; names after = are merged into the line's class, `id name r g b =
            other, another`; a line called void ignores them.
        images: the photographs' folder, where it is not the export's.
        link: make hard links of photographs, not copies.
        workers: processes that draw.
    """
    from cfnseg.convert.converting import convert_export

    convert_export(format, source, out, val, group_by, classes, images, link, workers)


def submit(
    server: Positional[str],
    masks: Positional[Path],
    *,
    root: str = "",
    split: str = "test",
    out: Path | None = None,
    competition: str = "comp5",
) -> None:
    """Check that every image has one mask of its size with ids that the server knows; pack them.

    Args:
        server: voc or cityscapes.
        masks: a folder of <image name>.png or, as infer writes them, <image name>_mask.png.
        root: the data set's folder ("" = its usual place under data/).
        split: the split that was segmented.
        out: the archive (default: next to MASKS).
        competition: VOC's comp5 (trained on VOC alone) or comp6 (on other data too).
    """
    from cfnseg.data.submission import submission

    submission(server, masks, root, split, out, competition)


def recipes(*, copy: tuple[str, Path] | None = None) -> None:
    """List the configs that ship, or copy one to edit it: cfnseg recipes --copy camvid_cfn .

    Args:
        copy: name and folder; a file that is there is not overwritten.
    """
    if copy:
        target = shipped.copy_recipe(*copy)
        print(f"{target}: edit it, then train with its path in place of the name")
    for name, path in {} if copy else shipped.recipes().items():
        print(f"{name:24}{shipped.about(path)}")


def completion(shell: Positional[Literal["bash", "zsh"]]) -> None:
    """Print the script that completes commands and options.

    bash: eval "$(cfnseg completion bash)". zsh: cfnseg completion zsh > DIR/_cfnseg, with a folder
    DIR of $fpath.

    Args:
        shell: whose script.
    """
    from cfnseg.cli import COMMANDS, Command, function_of

    shown = {
        name: entry
        for name, entry in COMMANDS.items()
        if isinstance(entry, Command) and entry.about
    }
    subcommands = {
        name: functools.partial(function_of(entry), config=Config())
        if entry.recipe
        else function_of(entry)
        for name, entry in shown.items()
    }
    tyro.extras.subcommand_cli_from_dict(
        subcommands, prog="cfnseg", args=["--tyro-print-completion", shell]
    )


def doctor(
    config: Settings,
    *,
    out: Path | None = None,
    workers: int = os.cpu_count() or 1,
    fix: Path | None = None,
) -> int:
    """Read every pair, name what is wrong and what fixes it; exit code 1 if there is an error.

    Args:
        out: folder of doctor.json and doctor.html (None = runs/<config name>/doctor).
        workers: processes that read.
        fix: write a fixed copy of the data set into this new folder; the old one stays as it is.
    """
    from cfnseg.doctor import examine_data

    report = examine_data(config, out, workers, fix, shlex.join(own_command()))
    return int(report["counts"]["error"] > 0)


def plan(
    data: Positional[str] = "",
    *,
    name: SegmentationData = "folder",
    hours: float | None = None,
    holdout: str = "",
    out: Path | None = None,
) -> None:
    """Read a data set, time a few training steps here, and write a config file with the reasons.

    For example: cfnseg plan my_data --hours 2 --out mine.py, then: cfnseg train mine.py

    Args:
        data: the data set's folder ("" = its usual place under data/).
        name: its layout; folder is images/, labels/ and classes.txt.
        hours: of the whole run (None = 1 on a CPU, 8 on a GPU).
        holdout: validate on the training images whose name starts with this ("" = the split val,
            or a seventh of the training images where there is none).
        out: the file to write (None = <folder>_plan.py here); one that is there is not overwritten.
    """
    from cfnseg.plan import write_plan

    write_plan(data, name, hours, holdout, out)

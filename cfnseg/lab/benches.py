"""The commands ``cfnseg bench ...``; importing this module imports neither torch nor models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

MODELS = (
    "cfn",
    "plain",
    "fcn",
    "unet",
    "fpn",
    "deeplabv3plus",
    "upernet",
    "segformer",
    "lraspp",
)


def bench_ops(
    *,
    ops: tuple[Literal["lc_fuse", "cross_entropy", "argmax"], ...] = (
        "lc_fuse",
        "cross_entropy",
        "argmax",
    ),
    batches: tuple[int, ...] = (8,),
    scale: tuple[float, ...] = (1.0,),
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    compile: bool = False,
    rounds: int = 9,
    out: Path = Path("runs/bench_ops"),
) -> None:
    """Time fusion, loss and class maps against the composition of torch operations.

    Runs on a GPU where there is one, else on the CPU. Prints a table; writes ops.md and ops.png.

    Args:
        ops: operations to measure.
        batches: numbers of images of lc_fuse; the dense operations take a quarter, at least 1.
        scale: factors on the sizes (1: maps of 128x128; masks of 512x1024 with 19 classes and of
            512x512 with 150).
        dtype: of branches and logits.
        compile: measure torch.compile of the eager composition as well.
        rounds: timed runs of each version, interleaved.
        out: folder of the files.
    """
    import torch

    from cfnseg.lab.op_speed import cases, measure, write_results

    device, kind = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, dtype)
    rows = []
    for case in cases(ops, batches, scale):
        rows += measure(case, device, kind, rounds, compile)
    print(write_results(rows, device, kind, out))


def bench_models(
    *,
    models: tuple[str, ...] = MODELS,
    encoder: str = "tf_efficientnet_lite0",
    sizes: tuple[tuple[int, int], ...] = ((360, 480),),
    batches: tuple[int, ...] = (8,),
    classes: int = 19,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    compile: bool = False,
    rounds: int = 7,
    out: Path = Path("runs/bench_models"),
) -> None:
    """Time training step and inference of CFN, baselines and decoders over the same encoder.

    Runs on a GPU where there is one, else on the CPU. Prints a table; writes models.md, models.json
    and models.png.

    Args:
        models: values of model.name.
        encoder: timm backbone of all models.
        sizes: (H, W) pairs.
        batches: numbers of images.
        classes: C.
        precision: arithmetic on a GPU, as train.precision; a CPU computes in float32.
        compile: measure each model with torch.compile as well.
        rounds: timed runs, interleaved with the encoder's.
        out: folder of the files.
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
    """Time training samples and parameter updates against the usual way, and print the ratios.

    Args:
        size: height and width of the image.
        crop: height and width of the crop.
        samples: training samples, with scales of 0.5 to 2 and colour jitter of 0.5.
        updates: updates of CFN's parameters by AdamW and by SGD.
    """
    from cfnseg.lab.pipeline_speed import describe, time_samples, time_updates

    times = time_samples(size, crop, samples)
    print(describe("a sample", ("resize, then crop", "cut, then resize"), times))
    for name in ("adamw", "sgd"):
        times, tensors = time_updates(name, updates)
        print(describe(f"{name}, {tensors} tensors", ("default", "fused"), times))


def bench_scoring(
    *,
    maps: int = 500,
    height: int = 1024,
    width: int = 2048,
    workers: int = 2,
    rounds: int = 3,
    details: bool = False,
) -> None:
    """Time scoring masks of Cityscapes' 19 classes against decoding their PNGs; print the ratio.

    Args:
        maps: pairs of truth and prediction; they share 20 pairs of files.
        height: of a map in pixels.
        width: of a map in pixels.
        workers: processes, for scoring and decoding alike.
        rounds: the median of so many ratios is taken.
        details: count boundaries, trimaps and segment sizes as well.
    """
    from cfnseg.lab.pipeline_speed import time_scoring

    print(time_scoring(maps, (height, width), workers, rounds, details))


def ablation(
    suite: tyro.conf.Positional[Path],
    *,
    seeds: int = 3,
    root: str = "",
    out: Path | None = None,
    only: tuple[str, ...] = (),
    table_only: bool = False,
) -> None:
    """Train and score the systems of a suite; write table.md, plot.png and costs.png.

    Finished runs are kept and interrupted ones resumed. Several processes share the runs: one for
    each GPU with CUDA_VISIBLE_DEVICES, or one for each core with OMP_NUM_THREADS=1. Costs are
    measured after the trainings, one at a time.

    Args:
        suite: a config file that defines a ``suite``, e.g. configs/ablation_camvid.py.
        seeds: seeds 0, 1, ... of each system.
        root: the data set's folder ("" = as in the suite).
        out: folder of runs, results and table (None = runs/<suite>).
        only: these systems alone.
        table_only: train nothing; write the table of the finished runs.
    """
    import torch

    from cfnseg.lab.ablation import finished, load_suite, run_suite, sharing
    from cfnseg.lab.ablation_table import write_table

    loaded = load_suite(suite)
    folder, names = out or Path("runs") / loaded.name, list(only)
    if not table_only:
        if advice := sharing(torch.get_num_threads(), torch.cuda.device_count()):
            print(advice)
        run_suite(loaded, folder, seeds, root, names)
    print(write_table(loaded, finished(loaded, folder, seeds, names), folder))


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
    """Compare encodings of a stage of a trained classification CFN with its fused feature.

    Prints linear-SVM accuracy and retrieval mAP of BoW, VLAD, Fisher vector, cross-layer pooling
    and the fused feature.

    Args:
        weights: of a classification CFN (cfnseg classify).
        root: the data set of its training.
        train_images: images that encoders and SVM are fitted to.
        test_images: held-out images that are scored; configs/cifar10_cfn.py holds out 5000.
        stage: index of the stage whose places are the local descriptors.
        dimensions: of the descriptors after PCA.
        seed: of k-means, mixtures and SVM.
        out: a file for the table as well.
    """
    from cfnseg.lab.encodings import compare_on_weights, markdown_table
    from cfnseg.report.text import write_text

    rows = compare_on_weights(weights, root, train_images, test_images, stage, dimensions, seed)
    table = markdown_table(rows)
    print(table)
    if out:
        write_text(out, table)

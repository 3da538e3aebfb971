"""``cfnseg bench WHAT``: each function prints its table; a parameter is an option."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
from tyro.conf import Positional

from cfnseg.errors import UserError

Operation = Literal["lc_fuse", "cross_entropy", "argmax"]
MODELS = ("cfn", "plain", "fcn", "unet", "fpn", "deeplabv3plus", "upernet", "segformer", "lraspp")


def ops(
    *, ops: tuple[Operation, ...] = ("lc_fuse", "cross_entropy", "argmax"),
    batches: tuple[int, ...] = (8,), scale: tuple[float, ...] = (1.0,),
    dtype: Literal["float32", "bfloat16", "float16"] = "float32", compile: bool = False,
    rounds: int = 9, out: Path = Path("runs/bench_ops"),
) -> None:
    """Time fusion, loss and class maps against their composition of torch operations.

    Prints one table; writes ops.md and ops.png. On a GPU where there is one, else on the CPU.

    Args:
        ops: what is measured.
        batches: images of lc_fuse to sweep; the dense operations take a quarter, at least 1.
        scale: factors on the sizes to sweep (1: maps of 128x128; masks of 512x1024 with 19 classes
            and 512x512 with 150).
        dtype: of branches and logits.
        compile: measure torch.compile of the eager composition as well.
        rounds: how often each time is taken, interleaved.
        out: where the files go.
    """
    import torch

    from cfnseg.benchmark.ops import cases, measure
    from cfnseg.benchmark.ops_table import write_results

    device, kind = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, dtype)
    rows = [row for case in cases(ops, batches, scale)
            for row in measure(case, device, kind, rounds, compile)]
    print(write_results(rows, device, kind, out))


def models(
    *, models: tuple[str, ...] = MODELS, encoder: str = "tf_efficientnet_lite0",
    sizes: tuple[tuple[int, int], ...] = ((360, 480),),
    batches: tuple[int, ...] = (8,), classes: int = 19,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true", compile: bool = False,
    rounds: int = 7, out: Path = Path("runs/bench_models"),
) -> None:
    """Time training step and inference of CFN, baselines and decoders over one bare encoder.

    Prints one table; writes models.md, models.json and models.png. On a GPU where there is one,
    else on the CPU.

    Args:
        models: names as model.name has them.
        encoder: timm backbone of every model.
        sizes: (H, W) pairs to sweep.
        batches: numbers of images to sweep.
        classes: C.
        precision: arithmetic on a GPU, as train.precision; a CPU has float32.
        compile: measure each compiled (torch.compile) as well.
        rounds: how often each time is taken, interleaved with the encoder's.
        out: where the files go.
    """
    from cfnseg.benchmark.models import cases, measure, write_results

    rows = []
    for case in cases(models, sizes, batches, compile):
        print(f"== {case}", flush=True)
        rows.append(measure(case, encoder, classes, precision, rounds))
        text = write_results(rows, encoder, out)
    print(text)
    if failed := sum("error" in row for row in rows):
        raise UserError(f"{failed} of {len(rows)} cases failed, see the table")


def step(
    *, size: tuple[int, int] = (1024, 2048), crop: tuple[int, int] = (512, 1024),
    samples: int = 200, updates: int = 50,
) -> None:
    """Time training samples and parameter updates, each in two ways, interleaved.

    Args:
        size: height and width of the image.
        crop: height and width of the crop.
        samples: how many, with scales of 0.5 to 2 and colour jitter of 0.5.
        updates: how many.
    """
    from cfnseg.benchmark.step import time_samples, time_updates

    times = time_samples(size, crop, samples)
    print(line("a sample", ("resize, then crop", "cut, then resize"), times))
    for name in ("adamw", "sgd"):
        times, tensors = time_updates(name, updates)
        print(line(f"{name}, {tensors} tensors", ("default", "fused"), times))


def line(what: str, ways: tuple[str, str], times: np.ndarray) -> str:
    """Mean and median of each way in ms, and the median of the rounds' ratios."""
    parts = (f"{way} {t.mean():.1f} ms (median {np.median(t):.1f})"
             for way, t in zip(ways, times.T * 1000))
    return f"{what}: {', '.join(parts)}, ratio {np.median(times[:, 1] / times[:, 0]):.2f}"


def scoring(
    *, maps: int = 500, height: int = 1024, width: int = 2048, workers: int = 2, rounds: int = 3,
    details: bool = False,
) -> None:
    """Time scoring maps of Cityscapes' 19 classes from files against decoding the same files.

    Args:
        maps: pairs of truth and prediction; 20 pairs of files are read again and again.
        height, width: of a map in pixels.
        workers: processes, for scoring and decoding alike.
        rounds: the median of so many ratios is taken.
        details: count boundaries, trimaps and sizes too.
    """
    from cfnseg.benchmark.scoring import drawn_maps, measure

    with tempfile.TemporaryDirectory() as folder:
        pairs = drawn_maps(Path(folder), 20, height, width)
        times = [measure(pairs, maps, workers, details, time.perf_counter) for _ in range(rounds)]
    ratio = np.median([score / decode for decode, score in times])
    decode, score = np.median(times, 0) / maps * 1000
    print(f"{maps} maps of {height} x {width}, {workers} processes: decoding both PNGs "
          f"{decode:.1f} ms a map, scoring {score:.1f} ms (reading included), ratio {ratio:.2f}")


def ablation(
    suite: Positional[Path], *, seeds: int = 3, root: str = "", out: Path | None = None,
    only: tuple[str, ...] = (), table_only: bool = False,
) -> None:
    """Train and score what has no result yet; write table.md and plot.png.

    Continues where it stopped. Started several times, the processes share the runs (one per GPU:
    set CUDA_VISIBLE_DEVICES).

    Args:
        suite: a recipe or config file that defines a ``suite``, e.g. ablation_camvid.
        seeds: seeds 0, 1, ... of each system.
        root: the data set's folder ("" = as in the suite).
        out: where runs, results and the table go ("" = runs/<suite>).
        only: these systems alone.
        table_only: train nothing, write the table of what is finished.
    """
    from cfnseg.benchmark.runs import finished, run_suite
    from cfnseg.benchmark.suite import load_suite
    from cfnseg.benchmark.table import write_table

    loaded = load_suite(suite)
    folder = out or Path("runs") / loaded.name
    results = (finished(loaded, folder, seeds, list(only)) if table_only
               else run_suite(loaded, folder, seeds, root, list(only)))
    print(write_table(loaded, results, folder))


def encodings(
    weights: Positional[Path], *, root: str = "", train_images: int = 5000,
    test_images: int = 5000, stage: int = 1, dimensions: int = 64, seed: int = 0,
    out: Path | None = None,
) -> None:
    """Print accuracy of a linear SVM and retrieval mAP of each encoding of a trained CFN's stage.

    The encodings are BoW, VLAD, Fisher vector, cross-layer pooling and CFN's fused feature.

    Args:
        weights: of a classification CFN (cfnseg classify).
        root: the data set that it was trained on.
        train_images: images that the encoders and the SVM are fitted to.
        test_images: images that are scored; 5000 are those that cifar10_cfn holds out.
        stage: index of the stage whose places are the local descriptors.
        dimensions: of the descriptors after PCA.
        seed: of k-means, mixtures and SVM.
        out: a file for the table as well.
    """
    from cfnseg.encoding.compare import markdown_table
    from cfnseg.encoding.study import compare_on_weights
    from cfnseg.storage import write_atomic

    table = markdown_table(compare_on_weights(weights, root, train_images, test_images, stage,
                                              dimensions, seed))
    print(table)
    if out:
        write_atomic(out, lambda temporary: temporary.write_text(table))

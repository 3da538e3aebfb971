"""Samples and batches. Order and randomness depend only on (seed, step).

So a run continues at any step at once, and no number of workers or processes changes a sample.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cfnseg.data.bands import Bands
from cfnseg.data.dataset import Dataset, read_sample, read_truth
from cfnseg.data.formats.class_folders import ImageSet
from cfnseg.data.transforms import ImageTransform, TrainTransform
from cfnseg.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


class Batch(dict):
    """A training batch: the samples' fields stacked.

    image (N, 3, h, w) uint8, or (N, C, h, w) of `Bands`, and names (list of str); for segmentation
    also mask (N, h, w) uint8, or layers (N, h, w, C), and region (N, 4) float32, for classification
    target (N,) int64.
    """


def steps_per_epoch(images: int, batch: int) -> int:
    """Complete batches of an epoch; UserError if there is none."""
    if batch > images:
        raise UserError(
            f"train.batch {batch} is more than the {images} training images; "
            f"set --train.batch {images} or less"
        )
    return images // batch


class Pick(NamedTuple):
    """Which sample is made.

    Attributes:
        epoch: counts from 0.
        index: of the image.
        wanted: the class that the sample is drawn for, or -1.
        place: in the epoch, for a sample with a wanted class, which an epoch may have twice.
    """

    epoch: int
    index: int
    wanted: int = -1
    place: int = 0


class StepBatches:
    """The batches of one process for the steps ``start`` to ``stop - 1``: lists of `Pick`.

    An epoch has the order permutation(seed, epoch). A step takes its next ``batch`` images, and
    process ``rank`` of ``world`` its share. ``rare`` of the images give way to one that has a
    class: the class is drawn evenly from all, the image evenly from those that have it.

    Args:
        images, batch, seed, start, stop, rank, world: see above.
        rare: 0 to 1.
        images_of: the images with a class, by class.

    Raises:
        UserError: the processes cannot share the batch evenly.
    """

    def __init__(
        self,
        images: int,
        batch: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        rare: float = 0.0,
        images_of: Sequence[np.ndarray] = (),
    ) -> None:
        if batch % world:
            raise UserError(
                f"train.batch {batch} is the total batch and cannot be shared by {world} "
                "processes evenly",
                code=2,
            )
        self.images, self.batch, self.seed, self.rank, self.world = images, batch, seed, rank, world
        self.start, self.stop = start, stop
        self.per_epoch = steps_per_epoch(images, batch)
        self.rare = rare
        self.images_of = {c: own for c, own in enumerate(images_of) if len(own)}

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Pick]]:
        share = self.batch // self.world
        known, order = -1, np.empty(0)
        for step in range(self.start, self.stop):
            epoch, position = divmod(step, self.per_epoch)
            if epoch != known:
                known, order = (
                    epoch,
                    np.random.default_rng([self.seed, epoch]).permutation(self.images),
                )
            first = position * self.batch + self.rank * share
            yield [self._pick(epoch, int(order[i]), i) for i in range(first, first + share)]

    def _pick(self, epoch: int, index: int, place: int) -> Pick:
        """The image at its turn, or one drawn in its place."""
        if not (self.rare and self.images_of):
            return Pick(epoch, index)
        rng = np.random.default_rng([self.seed, epoch, place, 1])
        if rng.random() >= self.rare:
            return Pick(epoch, index)
        wanted = int(rng.choice(list(self.images_of)))
        return Pick(epoch, int(rng.choice(self.images_of[wanted])), wanted, place)


HELD = {signal.SIGINT, signal.SIGTERM}  # sent to the process group; the main process decides


def parallel(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    *,
    ahead: int = 2,
    pin: bool = False,
) -> Iterator[R]:
    """Yield ``function(item)`` of each item, in order, computed by ``workers`` processes.

    For a batch an item is a list of indices, and the function returns the batch. The processes
    never see SIGINT and SIGTERM, not even while they start, and they end with the iterator or with
    this process.

    Args:
        function: picklable (a module's function or `functools.partial` of one), for processes that
            are not forked. Arrays in its result are copied; a tensor travels in shared memory, in a
            file of its own.
        items: small picklable values such as indices.
        workers: processes; 0 = compute in this one.
        ahead: results that each process computes ahead.
        pin: put the results' tensors in page-locked memory.

    Raises:
        UserError: as ``function`` raises it.
    """
    loader = DataLoader(
        _Results(function),
        batch_size=None,
        sampler=items,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        prefetch_factor=ahead if workers else None,
    )
    # a child inherits the mask, so no signal finds it before `_start_worker` has run
    if blocks := workers > 0 and hasattr(signal, "sigwaitinfo"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        results = iter(loader)
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        for result in results:
            if isinstance(result, UserError):
                raise result
            yield result
    finally:
        # ends the processes now: the traceback of a signal's exception keeps the iterator alive
        getattr(results, "_shutdown_workers", lambda: None)()
        del results


class _Results(Generic[T, R]):
    """A function as the torch data set that `DataLoader` asks for."""

    def __init__(self, function: Callable[[T], R]) -> None:
        self.function = function

    def __getitem__(self, item: T) -> R | UserError:
        try:
            return self.function(item)
        except UserError as error:  # a worker would wrap it in its traceback
            return error


def _unchanged(result: R) -> R:
    return result


def _start_worker(_: int) -> None:
    """Leave signals to the main process and keep to one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere SIGTERM ends a loader process
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """End this process at a SIGTERM of its parent, which sends it when it exits."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def train_batches(
    dataset: Dataset | ImageSet,
    transform: TrainTransform | ImageTransform,
    order: StepBatches,
    workers: int,
    pin: bool = False,
) -> Iterator[Batch]:
    """The batches of ``order``, by `parallel`. Raises UserError as `read_sample`."""
    return parallel(
        functools.partial(_batch, dataset, transform, order.seed), order, workers, ahead=4, pin=pin
    )


def _batch(
    dataset: Dataset | ImageSet,
    transform: TrainTransform | ImageTransform,
    seed: int,
    picks: list[Pick],
) -> Batch:
    samples = []
    for epoch, index, wanted, place in picks:
        if isinstance(dataset, ImageSet):
            image, target = dataset.image(index), dataset.targets[index]
        else:
            image, target = read_sample(dataset, index, transform.bands)
        parts = [seed, epoch, index] if wanted < 0 else [seed, epoch, index, 1 + wanted, place]
        own = int(np.random.SeedSequence(parts).generate_state(1)[0])
        how = {} if wanted < 0 else {"wanted": wanted}
        samples.append(transform(image, target, dataset.names[index], own, **how))
    *fields, names = zip(*samples)
    stacked = {
        f: torch.from_numpy(np.stack(values)) for f, values in zip(samples[0]._fields, fields)
    }
    return Batch(stacked, names=list(names))


def whole_images(
    dataset: Dataset,
    workers: int,
    rank: int = 0,
    world: int = 1,
    limit: int | None = None,
    bands: Bands | None = None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Every image once, uncropped: (index, image (3, H, W) uint8, train ids (H, W) uint8).

    With ``bands`` the image is (C, H, W) of their type.

    Process ``rank`` of ``world`` gets every world-th image; no image is repeated to make the shares
    even.
    """
    indices = range(len(dataset.names))[:limit][rank::world]
    return parallel(functools.partial(_whole, dataset, bands), indices, workers)


def _whole(dataset: Dataset, bands: Bands | None, index: int) -> tuple[int, Tensor, Tensor]:
    image, mask = read_sample(dataset, index, bands)
    return index, torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)


def labelled_images(
    dataset: ImageSet,
    transform: ImageTransform,
    batch: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once: (indices (N,), images (N, 3, h, w) uint8).

    Process ``rank`` of ``world`` gets every world-th image.
    """
    indices = range(len(dataset.names))[rank::world]
    batches = [indices[i : i + batch] for i in range(0, len(indices), batch)]
    return parallel(functools.partial(_labelled, dataset, transform), batches, workers)


def _labelled(
    dataset: ImageSet, transform: ImageTransform, indices: range
) -> tuple[Tensor, Tensor]:
    images = [
        transform(dataset.image(i), dataset.targets[i], dataset.names[i]).image for i in indices
    ]
    return torch.tensor(indices), torch.from_numpy(np.stack(images))


def class_counts(dataset: Dataset, workers: int) -> np.ndarray:
    """(images, C) int64 pixels of each class in each mask. Reads, and so checks, every mask."""
    counts = parallel(functools.partial(_class_counts, dataset), range(len(dataset.names)), workers)
    return np.stack(list(counts))


def _class_counts(dataset: Dataset, index: int) -> np.ndarray:
    truth = read_truth(dataset, index)
    if truth.ndim == 3:  # layers
        return (truth == 1).sum((0, 1))
    return np.bincount(truth.ravel(), minlength=256)[: len(dataset.labels)]


def class_frequency(counts: np.ndarray) -> np.ndarray:
    """(C,) float64 share of a class in the pixels of the images that have it; 0 for an absent
    class.

    Args:
        counts: (images, C) pixels.
    """
    totals = counts.sum(1, keepdims=True)
    seen = (totals * (counts > 0)).sum(0)
    return np.divide(counts.sum(0), seen, out=np.zeros(counts.shape[1]), where=seen > 0)


def median_frequency_weights(frequency: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Median-frequency balancing (Eigen and Fergus 2015): (median / frequency_c) ** power.

    Args:
        frequency: (C,), see `class_frequency`.
        power: below 1 softens the weights.

    Returns:
        (C,) float64; 0 for an absent class.
    """
    present = frequency > 0
    weights = np.zeros(len(frequency))
    weights[present] = (np.median(frequency[present]) / frequency[present]) ** power
    return weights

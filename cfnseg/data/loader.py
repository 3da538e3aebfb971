"""Order and randomness by arithmetic: which image a step sees, and how it is cut, follow from (seed, step) alone.

So a run can be continued at any step at once, and neither the number of workers nor of processes changes a sample.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cfnseg.data.dataset import Dataset, read_sample, read_truth
from cfnseg.data.image_sets import ImageSet
from cfnseg.data.transforms import ImageTransform, TrainTransform
from cfnseg.errors import UserError


class Batch(dict):
    """A training batch, the samples' fields stacked: image (N, 3, h, w) uint8, names (list of str), and for segmentation mask
    (N, h, w) uint8 and region (N, 4) float32, for image-level nets target (N,) int64."""


def steps_per_epoch(images: int, batch: int) -> int:
    """Steps of an epoch; the last incomplete batch is left out. Raises UserError if there is no complete one."""
    if batch > images:
        raise UserError(f"train.batch {batch} is more than the {images} training images; set --train.batch {images} or less")
    return images // batch


class StepBatches:
    """The batches of one process from one step to another: lists of (epoch, index).

    The order of an epoch is permutation(seed, epoch); a step takes the next ``batch`` of it, and process ``rank`` of
    ``world`` its share.

    Raises:
        UserError: the batch cannot be shared evenly.
    """

    def __init__(self, images: int, batch: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1) -> None:
        if batch % world:
            raise UserError(f"train.batch {batch} is the total batch and cannot be shared by {world} processes evenly", code=2)
        self.images, self.batch, self.seed, self.rank, self.world = images, batch, seed, rank, world
        self.start, self.stop = start, stop
        self.per_epoch = steps_per_epoch(images, batch)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch // self.world
        known, order = -1, np.empty(0)
        for step in range(self.start, self.stop):
            epoch, position = divmod(step, self.per_epoch)
            if epoch != known:
                known, order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.images)
            first = position * self.batch + self.rank * share
            yield [(epoch, int(i)) for i in order[first : first + share]]


class _Samples(TorchDataset):
    def __init__(self, dataset: Dataset | ImageSet, transform: TrainTransform | ImageTransform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __getitem__(self, key: tuple[int, int]):
        epoch, index = key
        try:
            images = isinstance(self.dataset, ImageSet)
            image, truth = (self.dataset.image(index), self.dataset.targets[index]) if images else read_sample(self.dataset, index)
        except UserError as error:  # a worker would wrap it in its traceback; the main process raises it as it is
            return error
        seed = int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0])
        return self.transform(image, truth, self.dataset.names[index], seed)


def _collate(samples: list) -> Batch | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    fields = [f for f in samples[0]._fields if f != "name"]
    return Batch({f: torch.from_numpy(np.stack([getattr(s, f) for s in samples])) for f in fields}, names=[s.name for s in samples])


HELD = {signal.SIGINT, signal.SIGTERM}  # they reach the whole process group; the main process decides


def quiet_worker(_: int) -> None:
    """What a loader process does first: it leaves signals to the main process and keeps to one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere SIGTERM ends a loader process
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(0)  # one loader process, one core
    torch.set_num_threads(1)


def loaded(loader: DataLoader) -> Iterator:
    """The items of a loader; its processes never see SIGINT and SIGTERM, not even while they start.

    Raises:
        UserError: an item is one.
    """
    # a child inherits the mask, so no signal finds it before `quiet_worker` has run
    if blocks := loader.num_workers > 0 and hasattr(signal, "sigwaitinfo"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        items = iter(loader)
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        for item in items:
            if isinstance(item, UserError):
                raise item
            yield item
    finally:
        del items  # ends the processes now: an error's traceback would keep them


def train_batches(dataset: Dataset | ImageSet, transform: TrainTransform | ImageTransform, order: StepBatches, workers: int,
                  pin: bool = False) -> Iterator[Batch]:
    """The batches of ``order``, loaded ahead by ``workers`` processes (0 = in this one).

    Raises:
        UserError: a file that cannot be used, as `read_sample` says it.
    """
    loader = DataLoader(_Samples(dataset, transform, order.seed), batch_sampler=order, num_workers=workers, collate_fn=_collate,
                        pin_memory=pin, worker_init_fn=quiet_worker, prefetch_factor=4 if workers else None)
    return loaded(loader)


def _end_with_parent() -> None:
    """End this process at a SIGTERM that its parent sent: it ends its children when it exits."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class _Whole(TorchDataset):
    def __init__(self, dataset: Dataset, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int):
        try:
            image, mask = read_sample(self.dataset, self.indices[position])
        except UserError as error:
            return error
        return self.indices[position], torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)


def whole_images(dataset: Dataset, workers: int, rank: int = 0, world: int = 1,
                 limit: int | None = None) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Every image once, whole: (index, image (3, H, W) uint8, train ids (H, W) uint8).

    Process ``rank`` of ``world`` gets every world-th image; no image is repeated to make the shares even.
    """
    indices = list(range(len(dataset.names)))[:limit][rank::world]
    loader = DataLoader(_Whole(dataset, indices), batch_size=None, num_workers=workers, worker_init_fn=quiet_worker)
    return loaded(loader)


class _Labelled(TorchDataset):
    def __init__(self, dataset: ImageSet, transform: ImageTransform, indices: list[int]) -> None:
        self.dataset, self.transform, self.indices = dataset, transform, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int):
        index = self.indices[position]
        try:
            image, target = self.dataset.image(index), self.dataset.targets[index]
        except UserError as error:
            return error
        return index, self.transform(image, target, self.dataset.names[index]).image


def _collate_labelled(items: list) -> tuple[Tensor, Tensor] | UserError:
    for item in items:
        if isinstance(item, UserError):
            return item
    return torch.tensor([i for i, _ in items]), torch.from_numpy(np.stack([image for _, image in items]))


def labelled_images(dataset: ImageSet, transform: ImageTransform, batch: int, workers: int, rank: int = 0,
                    world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once: (indices (N,), images (N, 3, h, w) uint8); process ``rank`` of ``world`` gets every world-th image."""
    indices = list(range(len(dataset.names)))[rank::world]
    loader = DataLoader(_Labelled(dataset, transform, indices), batch_size=batch, num_workers=workers, worker_init_fn=quiet_worker,
                        collate_fn=_collate_labelled)
    return loaded(loader)


class _ClassCounts(TorchDataset):
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.names)

    def __getitem__(self, index: int):
        try:
            return np.bincount(read_truth(self.dataset, index).ravel(), minlength=256)[: len(self.dataset.labels)]
        except UserError as error:
            return error


def class_counts(dataset: Dataset, workers: int) -> np.ndarray:
    """(images, C) int64: pixels of each class in each mask; reads every mask, so it also checks them all."""
    loader = DataLoader(_ClassCounts(dataset), batch_size=None, num_workers=workers, worker_init_fn=quiet_worker)
    return np.stack([np.asarray(item) for item in loaded(loader)])


def class_frequency(counts: np.ndarray) -> np.ndarray:
    """(C,) float64 share of each class's pixels in the images that it occurs in; 0 if it never does.

    Args:
        counts: (images, C) pixels.
    """
    totals = counts.sum(1, keepdims=True)
    seen = (totals * (counts > 0)).sum(0)
    return np.divide(counts.sum(0), seen, out=np.zeros(counts.shape[1]), where=seen > 0)


def median_frequency_weights(frequency: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Median-frequency balancing (Eigen and Fergus 2015): weight_c = (median frequency / frequency_c) ** power.

    Args:
        frequency: (C,) as `class_frequency` gives it.
        power: softens (below 1) the weights.

    Returns:
        (C,) float64; 0 for a class that never occurs.
    """
    present = frequency > 0
    weights = np.zeros(len(frequency))
    weights[present] = (np.median(frequency[present]) / frequency[present]) ** power
    return weights

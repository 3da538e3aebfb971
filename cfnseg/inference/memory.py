"""How much memory a prediction will take, estimated before it begins."""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cfnseg.inference.augment import view_logits
from cfnseg.inference.settings import Inference
from cfnseg.inference.windows import STRIP_BYTES, starts
from cfnseg.models.segmenter import Segmenter, blank_images

DRAWING = 3  # pictures of the image's size that exist at once while an overlay is drawn and written
PROBE = 256  # side of the crop whose activations are counted


class Peak(NamedTuple):
    """An upper estimate of what a prediction adds to the process, in bytes.

    Strip and network are on the model's device; they need not be at their worst together.

    Attributes:
        image: the image.
        outputs: mask and confidence.
        strip: the accumulator over the windows' rows, and a strip of logits at the image's
            resolution with its softmax.
        network: everything alive at the worst moment of a batch of windows.
    """

    image: int
    outputs: int
    strip: int
    network: int


@torch.inference_mode()
def expected_peak(model: Segmenter, size: tuple[int, int], inference: Inference) -> Peak:
    """What an image will need. A crop is run to count its tensors (a fraction of a second); the
    rest is arithmetic.

    Activations of a fully convolutional network grow with the area that it sees, and the count is
    scaled so; what convolutions allocate within themselves and what the allocator cannot reuse is
    not seen, and is put at half as much.

    Args:
        model: a segmentation model in eval mode.
        size: (H, W) of the image.
        inference: as for `cfnseg.inference.predictor.segment`.
    """
    test_scale = model.test_scale
    window = [min(w, n) for w, n in zip(inference.window_for(size, test_scale), size)]
    device = next(model.parameters()).device
    crop = [min(PROBE, n) for n in window]
    with _Alive() as alive, inference.autocast(device):
        images = blank_images(model, (1, *crop), device)
        region = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device)
        pixel, _, stride = view_logits(
            model, images, region, tuple(s * test_scale for s in inference.scales), inference.flip
        )
    windows = min(inference.batch, -(-size[1] // window[1]))
    area = window[0] * window[1] / (crop[0] * crop[1])
    cells = pixel.shape[1] * -(-window[0] // stride) * -(-size[1] // stride) * 4
    pixels = size[0] * size[1]
    image = images.shape[1] * images.element_size()
    return Peak(
        image * pixels,
        5 * pixels,
        2 * cells + 3 * STRIP_BYTES,
        int(1.5 * alive.peak * area * windows),
    )


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, and remembers the most that were alive
    at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.seen:
            self.seen[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self.seen.pop(key)


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say (other than
    Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def through_windows(
    model: Segmenter, size: tuple[int, int], inference: Inference, process: int, afterwards: int = 0
) -> str | None:
    """A line on an image that goes through in windows: how many, and the memory; None if it needs
    none.

    Args:
        model, size, inference: as for `expected_peak`.
        process: bytes that the process holds without the image.
        afterwards: bytes for what is made of the outputs once the network is done.
    """
    window = inference.window_for(size, model.test_scale)
    count = math.prod(len(starts(n, w, inference.overlap)) for n, w in zip(size, window))
    if count == 1:
        return None
    peak = expected_peak(model, size, inference)
    parts = {"process": process, **peak._asdict()}
    total = process + max(sum(peak), peak.image + peak.outputs + afterwards)
    listed = ", ".join(f"{name} {part / 2**30:.2f}" for name, part in parts.items())
    return (
        f"{size[0]} x {size[1]} px in {count} windows of {window[0]} x {window[1]}; "
        f"memory up to {total / 2**30:.2f} GiB ({listed})"
    )

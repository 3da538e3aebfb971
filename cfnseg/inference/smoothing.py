"""Temporal smoothing: class probabilities averaged over the frames of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from cfnseg.models.segmenter import Output, Segmenter
from cfnseg.storage import load_plain

THUMBNAIL = 32  # side of the gray thumbnails that cuts are seen in
CUT = 20.0  # mean difference of two thumbnails, of 255, above which they are two scenes


class Smoothing(nn.Module):
    """A model whose probabilities are an exponential moving average over frames.

    At every cell of the network's output, with frame t's logits z_t and the share s:

        p_t = s p_(t-1) + (1 - s) softmax(z_t),  p_0 = softmax(z_0),  logits = log p_t

    A frame t counts s times less in t + 1, so the average looks 1 / (1 - s) frames back, and a
    class that moves on stays that much longer. Nothing follows the motion. A cut starts anew.

    A frame may be several calls, of windows or of views; each has its own average, because the
    calls of two frames of one size are the same. Memory is that of their cells, twice.

    Args:
        model: in eval mode.
        share: s, 0 up to below 1.
    """

    def __init__(self, model: Segmenter, share: float) -> None:
        super().__init__()
        self.model, self.test_scale, self.share = model, model.test_scale, share
        self.averages: list[Tensor] = []  # p of each call, (N, C, h, w) float32
        self.plain: list[Output] = []  # of each call, without smoothing
        self.call, self.again = 0, False
        self.thumbnail: np.ndarray | None = None

    def begin(self, image: np.ndarray) -> None:
        """The next calls are of a new frame, (H, W, 3) uint8 RGB."""
        small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        thumbnail = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        before, self.thumbnail = self.thumbnail, thumbnail
        if before is None or np.abs(thumbnail - before).mean() > CUT:
            self.averages.clear()
        self.plain.clear()
        self.call, self.again = 0, False

    def repeat(self) -> None:
        """The next calls repeat the frame's; they return what the model alone returned."""
        self.call, self.again = 0, True

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """As the model's."""
        call, self.call = self.call, self.call + 1
        if self.again:
            return self.plain[call]
        output = self.model(images, region)
        self.plain.append(output)
        now = output.pixel.float().softmax(1)
        if call == len(self.averages):
            self.averages.append(now)
        elif self.averages[call].shape == now.shape:  # else the frames' size has changed
            now = self.averages[call] = now.lerp(self.averages[call], self.share)
        else:
            self.averages[call] = now
        return output._replace(pixel=now.clamp_min(torch.finfo(now.dtype).tiny).log())

    def state(self, frame: int) -> dict[str, Any]:
        """What frames after ``frame``, the last one, need of those before; plain values."""
        averages = [average.cpu() for average in self.averages]
        return {"frame": frame, "averages": averages, "thumbnail": self.thumbnail.tolist()}

    def restore(self, path: Path, kept: int) -> int:
        """Go on after a state that was saved with torch.save.

        Args:
            path: the state's file.
            kept: frames 0 to ``kept`` - 1 have masks.

        Returns:
            How many of them need not be computed again; 0 without a state that fits.
        """
        if not kept or not path.exists() or (state := load_plain(path))["frame"] >= kept:
            return 0
        device = next(self.parameters()).device
        self.averages = [average.to(device) for average in state["averages"]]
        self.thumbnail = np.array(state["thumbnail"], np.float32)
        return state["frame"] + 1

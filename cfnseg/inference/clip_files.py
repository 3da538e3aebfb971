"""Inference on a clip or a camera: a mask for each frame, and a video of the overlays.

A command that was stopped, even by kill -9, left the masks of the first frames. The same command
keeps them, computes the others, and draws the overlay of all; a video that was cut off could not
be read. Masks of other weights or settings, or of another clip, are made anew (`clip_masks`).

Memory is that of a few frames, however long the clip is.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfnseg.data.files import read_mask
from cfnseg.drawing import overlay
from cfnseg.errors import Stopped, UserError, first_line
from cfnseg.inference.clip_masks import STATE, describe, identity, kept_masks, made_by, mask_path
from cfnseg.inference.memory import DRAWING, resident, through_windows
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.inference.predictor import Predictor, segment
from cfnseg.inference.smoothing import Smoothing
from cfnseg.inference.video import Camera, Clip, Frame, VideoWriter, is_camera
from cfnseg.models.segmenter import as_segmenter
from cfnseg.progress import progress
from cfnseg.storage import locked, write_atomic

MASKS, VIDEO = "_masks", "_overlay.mp4"  # what the names of results end with
PART, LOCK = ".part.png", ".lock"  # beside the masks: one that is being written; who writes
WAITING = 2  # frames that may wait to be written
SAVED = 50  # frames from one saved state of the smoothing to the next


def infer_clip(
    path: Path,
    name: str,
    out: Path,
    predictor: Predictor | OnnxPredictor,
    weights: Path,
    smooth: float = 0.0,
    limit: int | None = None,
) -> bool:
    """Segment a clip or a camera. Frames are read and written in threads while the network
    computes.

    ``out`` gets ``<name>_masks/000000.png`` and so on, one 8-bit palette PNG of raw ids a frame, of
    exactly the frame's size, and ``<name>_overlay.mp4`` with each frame's own time, without sound.
    Printed at last: frames per second, the share of the time in which the network computed, the
    classes' areas, and the flicker, which is the share of the pixels that change their class from
    a frame to the next.

    Args:
        path: a video file, or a camera's index, which is read until SIGINT or ``limit``.
        name: of the results; a camera's get the time after it.
        out: a folder.
        predictor: the network, with windows and views; or an exported file.
        weights: its file, which tells its masks from others'.
        smooth: see `Smoothing`; 0 = each frame on its own, the only choice of an exported file.
        limit: read so many frames; None = all.

    Returns:
        False if the clip ended early or had damaged parts, named on stderr; what could be read is
        written.

    Raises:
        UserError: nothing can be read, or results cannot be written.
    """
    source: Clip | Camera
    if is_camera(path):
        source, name = Camera(int(str(path))), f"camera{name}_{time.strftime('%Y%m%d-%H%M%S')}"
        same = f"{source.name} at {time.time()}"
    else:
        source, same = Clip(path), identity(path)
    origin = made_by(same, weights, predictor.inference, smooth)
    folder, video = out / f"{name}{MASKS}", out / f"{name}{VIDEO}"
    with (
        contextlib.closing(source),
        locked(folder / LOCK, f"{folder} is being written by another command"),
    ):
        return _Work(source, folder, video, predictor, smooth).run(origin, limit)


class Flicker:
    """The share of the pixels that change their class from a frame to the next."""

    def __init__(self) -> None:
        self.before: np.ndarray | None = None
        self.changed = self.pixels = 0

    def add(self, mask: np.ndarray) -> None:
        """The next frame's train ids."""
        if self.before is not None and self.before.shape == mask.shape:
            self.changed += int(np.count_nonzero(mask != self.before))
            self.pixels += mask.size
        self.before = mask

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.changed / max(1, self.pixels)


class _Work:
    """The segmentation of one source.

    Attributes:
        count: frames written.
        kept: masks of an earlier command.
        busy: seconds in which the network computed.
    """

    def __init__(
        self,
        source: Clip | Camera,
        folder: Path,
        video: Path,
        predictor: Predictor | OnnxPredictor,
        smooth: float,
    ) -> None:
        self.source, self.folder, self.video, self.predictor = source, folder, video, predictor
        self.smoothing: Smoothing | None = None
        if smooth:
            assert isinstance(predictor, Predictor)
            self.smoothing = Smoothing(as_segmenter(predictor.model), smooth)
        self.writer: VideoWriter | None = None
        self.count = self.kept = 0
        self.busy, self.began = 0.0, time.perf_counter()
        self.areas = np.zeros(256, np.int64)
        self.flicker, self.plain_flicker = Flicker(), Flicker()

    def run(self, origin: dict[str, Any], limit: int | None) -> bool:
        """As `infer_clip`."""
        try:
            self._segment(origin, limit)
            self._finish(origin)
        except KeyboardInterrupt as stopped:
            if self.source.live and self.count:  # so a camera ends
                self._finish(origin)
                if not isinstance(stopped, Stopped):  # SIGINT, which the user is asked for
                    return True
            elif self.count:
                print(f"stopped; {self.count} masks are there, the same command goes on after them")
            raise
        finally:
            if self.writer:
                self.writer.discard()
        if not self.source.lost or self.count == limit:
            return True
        print(f"error: {self.source.name}: {self.source.lost}", file=sys.stderr)
        return False

    def _segment(self, origin: dict[str, Any], limit: int | None) -> None:
        """Read, compute and write every frame."""
        total = limit if self.source.total is None else min(limit or sys.maxsize, self.source.total)
        writing: deque[Future] = deque()
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            frames = islice(read_ahead(reader, self.source.frames()), limit)
            shown = progress(frames, total, self.source.name, "frames")
            with contextlib.closing(shown):
                for index, frame in enumerate(shown):
                    if index == 0:
                        self._start(frame.image, origin)
                    result = self._mask(index, frame.image)
                    while len(writing) >= WAITING:
                        writing.popleft().result()
                    writing.append(writer.submit(self._write, index, frame, *result))
            for future in writing:
                future.result()

    def _start(self, image: np.ndarray, origin: dict[str, Any]) -> None:
        """What the first frame decides; a line on the source."""
        source, size = self.source, image.shape[:2]
        self.kept = kept_masks(self.folder, origin)
        if self.smoothing:
            self.kept = self.smoothing.restore(self.folder / STATE, self.kept)
        self.writer = VideoWriter(self.video, source, size)
        describe(self.folder, source.name, origin, None)
        about = [f"{size[1]} x {size[0]} px", f"{float(source.rate):.5g} frames/s"]
        if source.total:
            about.append(f"{source.total} frames")
        if self.kept:
            about.append(f"the first {self.kept} have their masks")
        if source.sound:
            about.append("without its sound")
        print(f"{source.name}: {', '.join(about)}", flush=True)
        if isinstance(self.predictor, OnnxPredictor):  # it has no windows
            return
        # three copies of the probabilities at stride 4, if they are averaged
        averages = bool(self.smoothing) * 3 * len(self.predictor.labels) * size[0] * size[1] // 4
        message = through_windows(
            self.predictor.model,
            size,
            self.predictor.inference,
            resident() + averages + WAITING * image.size,
            DRAWING * image.size,
        )
        if message:
            print(f"{source.name}: {message}", flush=True)

    def _mask(
        self, index: int, image: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, dict | None]:
        """A frame's mask, with smoothing the one without, and the state to save; train ids."""
        if index < self.kept:
            stored = read_mask(mask_path(self.folder, index))
            return self.predictor.labels.encode(stored), None, None
        start = time.perf_counter()
        if index == self.kept:
            self.began = start
        plain = state = None
        if isinstance(self.predictor, OnnxPredictor):
            mask = self.predictor.run(image)[0]
        else:
            tensor = torch.from_numpy(image).permute(2, 0, 1)
            model, inference = self.predictor.model, self.predictor.inference
            if self.smoothing:
                model = self.smoothing
                model.begin(image)
            mask = segment(model, tensor, inference).mask.cpu().numpy()
            if self.smoothing:
                self.smoothing.repeat()
                plain = segment(model, tensor, inference).mask.cpu().numpy()
                if (index + 1) % SAVED == 0:
                    state = self.smoothing.state(index)
        self.busy += time.perf_counter() - start
        return mask, plain, state

    def _write(
        self,
        index: int,
        frame: Frame,
        mask: np.ndarray,
        plain: np.ndarray | None,
        state: dict | None,
    ) -> None:
        """Write a frame's mask, unless it is there, and its overlay; count."""
        labels, part = self.predictor.labels, self.folder / PART
        try:
            if index >= self.kept:
                labels.write(part, mask)
                part.replace(mask_path(self.folder, index))
            if state:
                write_atomic(self.folder / STATE, lambda path: torch.save(state, path))
            self.writer.add(overlay(frame.image, mask, labels), frame.time)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            path = mask_path(self.folder, index)
            raise UserError(f"{path} could not be written ({first_line(error)})") from None
        self.areas += np.bincount(mask.ravel(), minlength=256)
        self.flicker.add(mask)
        if plain is not None:
            self.plain_flicker.add(plain)
        self.count += 1

    def _finish(self, origin: dict[str, Any]) -> None:
        """Close the overlay, and print the summary."""
        if not self.count:
            lost = f" ({self.source.lost})" if self.source.lost else ""
            raise UserError(f"{self.source.name}: no frame could be read{lost}")
        self.writer.close()
        if self.smoothing and self.count > self.kept and not self.source.live:
            state = self.smoothing.state(self.count - 1)
            write_atomic(self.folder / STATE, lambda path: torch.save(state, path))
        describe(self.folder, self.source.name, origin, self.count)
        seconds, computed = time.perf_counter() - self.began, self.count - self.kept
        print(f"{self.source.name} -> {self.video}, {self.folder.name} ({self.count} masks)")
        if computed:
            print(
                f"  {computed} frames in {seconds:.1f} s, {computed / seconds:.1f} frames/s; "
                f"the network computed {self.busy / seconds:.0%} of the time"
            )
        shares = 100 * self.areas / self.areas.sum()
        order = np.argsort(-shares[: len(self.predictor.labels)], kind="stable")
        names = [f"{self.predictor.labels.names[k]} {shares[k]:.1f} %" for k in order if shares[k]]
        print(f"  area: {', '.join(names)}")
        flicker = f"{self.flicker.share:.2%} of the pixels change class from frame to frame"
        if self.smoothing:
            flicker += f" ({self.plain_flicker.share:.2%} without --smooth)"
        print(f"  flicker: {flicker}")


def read_ahead(pool: ThreadPoolExecutor, frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames; the next one is read meanwhile."""
    following = pool.submit(next, frames, None)
    while (frame := following.result()) is not None:
        following = pool.submit(next, frames, None)
        yield frame

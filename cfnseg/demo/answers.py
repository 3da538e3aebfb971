"""The demo's answers: from the bytes of an image to what the page draws. Nothing is kept."""

from __future__ import annotations

import io
import json
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from cfnseg.data.bands import demand_rgb
from cfnseg.data.decode import FAULTS, decode_image
from cfnseg.data.formats import shapes
from cfnseg.data.labels import LabelMap
from cfnseg.drawing import shrink
from cfnseg.errors import UserError
from cfnseg.inference.explanation import check_explainable, explain
from cfnseg.inference.explanation_picture import color_of
from cfnseg.inference.pixel_parts import pixel_parts
from cfnseg.inference.predictor import Predictor
from cfnseg.inference.settings import PLAIN
from cfnseg.models.segmenter import bands_of
from cfnseg.models.weights import load

MOST_BYTES = 20 * 2**20  # of an upload
MOST_PIXELS = 40_000_000
MOST_SIDE = 20_000  # a line of pixels goes through many windows, each padded to 32 rows
MOST_SCANS = 100  # of a progressive JPEG: each is decoded over the whole picture
LONGEST = 120.0  # seconds that others may have to wait for one image
ALWAYS = 2**20  # pixels that are taken on any machine
VIEW = 1600  # longest side of what the page draws
SMALL = 2**17  # pixels of a view that JPEG would blur to no use
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
SCENES, SCENE = (1_000_014, 1_000_026, 1_000_017), (288, 384)  # seeds and size of the examples


class TooLarge(UserError):
    """The image is too large for this machine; a smaller copy would do."""


class Answers:
    """What the page asks of a model; one call at a time.

    Args:
        weights: a weights file.
        device: "auto", "cpu" or "cuda".

    Attributes:
        pace: seconds that an image takes for each pixel; it follows what is measured.

    Raises:
        UserError: the weights cannot be used.
    """

    def __init__(self, weights: Path, device: str = "auto") -> None:
        loaded = load(weights)
        demand_rgb(bands_of(loaded.model), "the demo")
        loaded.demand_softmax(weights, "the demo")
        self.predictor = Predictor(loaded, device)
        self.labels: LabelMap = self.predictor.labels
        self.whole = loaded.model.to(self.predictor.device, memory_format=torch.channels_last)
        self.why_not = ""  # why the branches cannot be shown
        try:
            check_explainable(self.whole)
        except UserError as error:
            self.why_not = str(error).removeprefix("explain: ")
        self.about = {
            "name": weights.stem if weights.stem != "best" else f"{weights.parent.name}/best",
            "data": loaded.score.get("data", ""),
            "model": loaded.settings.name,
            "device": self.predictor.device.type,
            "classes": [{"name": c.name, "color": c.color} for c in self.labels.labels],
            "why_not": self.why_not,
            "bytes": MOST_BYTES,
            "examples": len(SCENES),
            "drawn": self.labels.names == [name for _, name, _ in shapes.CLASSES],
        }
        self.examples = [_png(shapes.render(seed, SCENE)[0]) for seed in SCENES]
        for example in self.examples[:2]:
            self.pace = 0.0  # the first pass is slower than those that follow
            self.segment(example)

    def segment(self, data: bytes) -> bytes:
        """The mask of an image, `packed`.

        In the header: size and ``view`` (width, height), ``seconds``, and ``classes`` as lists of
        train id, pixels and mean confidence, the largest first. Parts: ``photo``, the image as the
        network saw it; ``ids`` and ``confidence`` in percent, a byte a pixel, all three of the
        view's size; ``mask``, the file that `cfnseg infer` writes.
        """
        image = self.image(data)
        start = time.perf_counter()
        found = self.predictor(image)
        seconds = time.perf_counter() - start
        mask, confidence = found.mask, found.confidence
        pace = seconds / mask.size
        self.pace = 0.7 * self.pace + 0.3 * pace if self.pace else pace
        pixels = np.bincount(mask.ravel(), minlength=len(self.labels))
        sure = np.bincount(mask.ravel(), confidence.ravel(), len(self.labels))
        order = [int(c) for c in np.argsort(-pixels, kind="stable") if pixels[c]]
        photo, ids = shrink(image, VIEW), shrink(mask, VIEW, ids=True)
        percent = np.rint(100 * shrink(confidence, VIEW)).astype(np.uint8)
        file = io.BytesIO()
        self.labels.write(file, mask)
        header = {
            "size": mask.shape[::-1],
            "view": ids.shape[::-1],
            "seconds": round(seconds, 2),
            "classes": [[c, int(pixels[c]), float(sure[c] / pixels[c])] for c in order],
        }
        return packed(
            header,
            photo=_png(photo) if ids.size <= SMALL else _jpeg(photo),
            ids=ids.tobytes(),
            confidence=percent.tobytes(),
            mask=file.getvalue(),
        )

    def pixel(self, data: bytes, x: int, y: int) -> bytes:
        """The `PixelParts` of an image at (x, y), `packed`: ``names``, ``colors`` and ``parts``."""
        self._demand_branches()
        image = self.image(data)
        height, width = image.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"pixel ({x}, {y}) is outside of the image of {width} x {height} px")
        names, parts = pixel_parts(self.whole, _tensor(image), x, y)
        colors = [color_of(name) for name in names]
        return packed({"names": names, "colors": colors, "parts": parts.tolist()})

    def branches(self, data: bytes) -> bytes:
        """Which branch decided where, `packed`.

        In the header: ``names``, ``colors``, ``shares`` of the image, ``size`` in cells, and
        ``stride``. The part ``deciding`` has a name's index a cell.
        """
        self._demand_branches()
        image = self.image(data)
        size = image.shape[:2]
        if any(w < n for w, n in zip(PLAIN.window_for(size, self.whole.test_scale), size)):
            raise TooLarge(
                "the map of branches is drawn for images that the network sees in one pass; a "
                "click on a pixel works at any size"
            )
        found = explain(self.whole, _tensor(image))
        deciding = found.deciding.astype(np.uint8)
        shares = np.bincount(deciding.ravel(), minlength=len(found.names)) / deciding.size
        header = {
            "names": found.names,
            "colors": [color_of(name) for name in found.names],
            "shares": shares.tolist(),
            "size": deciding.shape[::-1],
            "stride": found.stride,
        }
        return packed(header, deciding=deciding.tobytes())

    def image(self, data: bytes) -> np.ndarray:
        """Decode an upload by its content, as `cfnseg.read_image` does.

        Raises UserError, in one line, for what is no image or a hostile one, before its pixels
        take memory; TooLarge for what would hold others up.
        """
        height, width = size = stored_size(data)
        pixels = height * width
        if pixels > MOST_PIXELS or max(size) > MOST_SIDE:
            raise TooLarge(
                f"the image has {width} x {height} px; at most {MOST_PIXELS:,} px and a side of "
                f"{MOST_SIDE:,} are taken"
            )
        if pixels > ALWAYS and pixels * self.pace > LONGEST:
            minutes, most = pixels * self.pace / 60, max(ALWAYS, LONGEST / self.pace)
            raise TooLarge(
                f"the image has {width} x {height} px, which would take this machine about "
                f"{minutes:.0f} minutes; about {most / 1e6:.1f} million px are taken"
            )
        return decode_image(data, "the upload")

    def _demand_branches(self) -> None:
        if self.why_not:
            raise UserError(self.why_not)


def stored_size(data: bytes) -> tuple[int, int]:
    """Height and width of an upload by its header alone; UserError if it is no image we read."""
    if not data:
        raise UserError("the upload is empty; expected an image file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
    except Image.DecompressionBombError:
        raise TooLarge(f"the image has more than {MOST_PIXELS:,} px") from None
    except FAULTS:
        raise UserError(
            "the upload is no image that can be read; expected JPEG, PNG, WebP, BMP or TIFF"
        ) from None
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MOST_SCANS:
        raise UserError(f"the upload is a JPEG of more than {MOST_SCANS} scans, and was not read")
    return height, width


def packed(header: dict, **parts: bytes) -> bytes:
    """An answer in one piece: the header's length as uint32, the header in JSON, the parts.

    The header's ``parts_bytes`` has the length of each part, in their order; all little-endian.
    """
    lengths = {name: len(part) for name, part in parts.items()}
    head = json.dumps(header | {"parts_bytes": lengths}, allow_nan=False).encode()
    return b"".join([struct.pack("<I", len(head)), head, *parts.values()])


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()

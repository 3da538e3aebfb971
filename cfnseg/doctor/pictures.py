"""The page's pictures: image, mask and both together of the pairs that findings are about, and look-alikes side by side."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from cfnseg.data.dataset import read_sample
from cfnseg.data.files import read_image
from cfnseg.data.formats.voc import color
from cfnseg.data.labels import LabelMap
from cfnseg.doctor.examine import ImageFacts, MaskFacts, Pair, Record, open_mask, pack_pixels
from cfnseg.doctor.findings import Finding
from cfnseg.doctor.forms import PLAIN, Form
from cfnseg.drawing import View, address, blend, fitted, photo, shrink
from cfnseg.errors import UserError

SIDES = (400, 280, 180, 100)  # longest sides to try
EACH = 3  # pairs shown of a finding
SAMPLE = 6  # pairs shown of the whole data set
STRANGE = (255, 0, 255)  # colour of ids that are no class and not ignored


@dataclass(frozen=True)
class Strip:
    """Pictures that belong together, and their caption."""

    name: str
    note: str
    views: list[View]


def pictures(findings: list[Finding], records: list[Record], forms: list[Form | None],
             labels: LabelMap | None) -> tuple[list[list[Strip]], list[Strip]]:
    """Strips of each finding, and of a sample of the whole data set. Smaller ones where they weigh much."""
    good = [i for i, r in enumerate(records) if isinstance(r.image, ImageFacts) and isinstance(r.mask, MaskFacts)]
    sample = [good[int(k)] for k in np.unique(np.linspace(0, len(good) - 1, min(SAMPLE, len(good))).astype(int))]
    wanted = {i for f in findings for i in f.pairs[:EACH]} | {i for f in findings for twins in f.twins for i in twins} | set(sample)
    small = {i: _load(records[i].pair, forms[i], labels) for i in sorted(wanted)}

    def draw(side: int) -> tuple[list[list[Strip]], list[Strip]]:
        found = [[*(_pair(records[i], *small[i], side) for i in f.pairs[:EACH]),
                  *(_twins(records[i], records[j], small[i][0], small[j][0], side) for i, j in f.twins)] for f in findings]
        return found, [_pair(records[i], *small[i], side) for i in sample]

    def size(drawn: tuple[list[list[Strip]], list[Strip]]) -> int:
        strips = [*drawn[1], *(strip for group in drawn[0] for strip in group)]
        return sum(len(view.picture or "") for strip in strips for view in strip.views)

    return fitted(draw, SIDES, size)


def _load(pair: Pair, form: Form | None, labels: LabelMap | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Image and coloured mask, each (h, w, 3) uint8 of the largest side that is shown, or None."""
    if pair.drawn:
        dataset, index = pair.drawn
        image, train = read_sample(dataset, index)
        return shrink(image, SIDES[0]), shrink(dataset.labels.colorize(train), SIDES[0], ids=True)
    image = mask = None
    with contextlib.suppress(UserError):  # a finding says why
        image = shrink(read_image(pair.image), SIDES[0]) if pair.image else None
    with contextlib.suppress(UserError):
        mask = shrink(_colored(open_mask(pair.mask)[0], form, labels), SIDES[0], ids=True) if pair.mask else None
    return image, mask


def _colored(pixels: np.ndarray, form: Form | None, labels: LabelMap | None) -> np.ndarray:
    """A mask as it is understood: classes in their colours, ignored pixels white, unknown ids in a colour that no one can miss."""
    if pixels.ndim == 3 and form is None:
        return pixels
    values, inverse = np.unique(pack_pixels(pixels), return_inverse=True)
    ids = np.array(values if form in (None, PLAIN) else form.ids(values), np.int64)
    known = {label.id: label.color for label in labels.labels} | dict.fromkeys(labels.ignore, (255, 255, 255)) if labels else {}
    colors = np.array([known.get(i, STRANGE if labels else color(i % 256)) for i in ids.tolist()], np.uint8).reshape(-1, 3)
    return colors[inverse.reshape(pixels.shape[:2])]


def _pair(record: Record, image: np.ndarray | None, mask: np.ndarray | None, side: int) -> Strip:
    """Image, mask and both together; what is missing leaves its frame."""
    image = image if image is None else shrink(image, side)
    mask = mask if mask is None else shrink(mask, side, ids=True)
    shape = next((x.shape for x in (image, mask) if x is not None), (3, 4, 3))
    facts = [(kind, fact) for kind, fact in (("image", record.image), ("mask", record.mask)) if fact and not isinstance(fact, str)]
    sizes = [f"{kind} {fact.size[1]}x{fact.size[0]}" for kind, fact in facts]
    views = [_view("image", image, shape, "no image" if record.image is None else "unreadable"),
             _view("mask", mask, shape, "no mask" if record.mask is None else "unreadable", lossless=True)]
    if image is not None and mask is not None and record.image.size == record.mask.size:
        over = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        views.append(_view("together", blend(image, over), shape, ""))
    elif image is not None and mask is not None:
        views.append(_view("together", None, shape, "sizes differ"))
    return Strip(record.pair.name, ", ".join([record.pair.split, *sizes]), views)


def _twins(a: Record, b: Record, one: np.ndarray | None, two: np.ndarray | None, side: int) -> Strip:
    views = [_view(f"{r.pair.split}: {r.pair.name}", x if x is None else shrink(x, side), (3, 4), "unreadable")
             for r, x in ((a, one), (b, two))]
    same = "equal pixels" if a.image.digest == b.image.digest else f"hashes {bin(a.image.hash ^ b.image.hash).count('1')} of 64 bits apart"
    return Strip(f"{a.pair.name} and {b.pair.name}", same, views)


def _view(heading: str, picture: np.ndarray | None, shape: tuple[int, ...], instead: str, lossless: bool = False) -> View:
    if picture is None:
        return View(heading, None, instead, shape[1], shape[0])
    if lossless:
        few_colors = len(np.unique(pack_pixels(picture))) <= 256
        image = Image.fromarray(picture)
        text = address(image.quantize(256, dither=Image.Dither.NONE), "PNG", optimize=True) if few_colors else photo(picture)
        return View(heading, text, "", picture.shape[1], picture.shape[0])
    return View(heading, photo(picture), "", picture.shape[1], picture.shape[0])

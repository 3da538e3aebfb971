"""The picture of an `Explanation`: mask, deciding branches, and their shares by class."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from cfnseg.data.labels import LabelMap
from cfnseg.drawing import blend, overlay, shrink
from cfnseg.inference.explanation import Explanation

# from fine to coarse, light to dark; the context and the biases, which see no place, apart
COLORS = {
    "stride 1": (255, 240, 120),
    "stride 2": (255, 205, 40),
    "stride 4": (255, 138, 40),
    "stride 8": (230, 66, 92),
    "stride 16": (150, 40, 160),
    "stride 32": (52, 40, 150),
    "context": (0, 150, 130),
    "bias": (150, 150, 150),
}
OTHER = (20, 20, 60)  # stride 64
SIDE = 560  # longest side of a panel in pixels
LINE, GAP, LETTERS = 24, 12, 15  # of the text
CAPTION = (
    "share of a predicted class's area where a branch has the largest part in the margin "
    "over the runner-up"
)
INK, SOFT = (23, 26, 33), (92, 100, 114)


def explanation_picture(
    image: np.ndarray, mask: np.ndarray, explanation: Explanation, labels: LabelMap
) -> np.ndarray:
    """Image, mask and deciding branches side by side; below, a bar for each predicted class.

    A class's bar is divided into the shares of its cells that each branch decides.

    Args:
        image: RGB.
        mask: train ids of the image.
        explanation: of the image.
        labels: the classes.

    Returns:
        RGB (H, W, 3) uint8 on white.
    """
    panels = _panels(image, mask, explanation, labels)
    decided, _ = explanation.by_class(len(labels))
    shown = [int(c) for c in np.argsort(-decided.sum(1), kind="stable") if decided[c].any()]
    height, width = panels[0].shape[:2]
    total = max(3 * width + 4 * GAP, 1000)
    top = GAP + LINE + height + GAP  # of what is below the panels
    picture = Image.new("RGB", (total, top + (len(shown) + 3) * LINE + GAP), "white")
    draw = ImageDraw.Draw(picture)

    def write(x: float, y: float, text: str, color=INK) -> float:
        draw.text((x, y), text, fill=color, font_size=LETTERS)
        return x + draw.textlength(text, font_size=LETTERS)

    def swatch(x: float, y: float, color: tuple[int, int, int]) -> float:
        draw.rectangle((x, y + 3, x + 13, y + 16), fill=color, outline=SOFT)
        return x + 20

    titles = "image", "prediction", "the branch that decided"
    for k, (title, panel) in enumerate(zip(titles, panels)):
        x = GAP + k * (width + GAP)
        write(x, GAP, title, SOFT)
        picture.paste(Image.fromarray(panel), (x, GAP + LINE))
    x, parts = GAP, decided.sum(0) / decided.sum()
    for name, part in zip(explanation.names, parts):
        x = write(swatch(x, top, color_of(name)), top, f"{name}  {100 * part:.1f} %") + 2 * GAP
    top += LINE + LINE // 2
    write(GAP, top, CAPTION, SOFT)
    left = GAP + 20 + max(draw.textlength(n, font_size=LETTERS) for n in labels.names) + GAP
    for row, c in enumerate(shown):
        y = top + (row + 1) * LINE
        write(swatch(GAP, y, labels.labels[c].color), y, labels.names[c])
        area = decided[c].sum()
        write(left, y, f"{100 * area / decided.sum():.1f} %", SOFT)
        _bar(draw, (left + 64, y + 1, total - GAP, y + LINE - 4), decided[c] / area, explanation)
    return np.asarray(picture)


def color_of(name: str) -> tuple[int, int, int]:
    """A branch's colour, the same in every picture and report."""
    return COLORS.get(name, OTHER)


def _panels(
    image: np.ndarray, mask: np.ndarray, explanation: Explanation, labels: LabelMap
) -> list[np.ndarray]:
    """Image, mask over image, and deciding branches over the gray image; of one small size."""
    colors = np.array([color_of(name) for name in explanation.names], np.uint8)
    size = image.shape[1::-1]
    small = shrink(image, SIDE)
    if max(size) < SIDE // 2:  # cells of a small image would not show
        small = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    fit = small.shape[1::-1]
    cells = colors[explanation.deciding].repeat(explanation.stride, 0).repeat(explanation.stride, 1)
    ids, cells = (
        cv2.resize(x, fit, interpolation=cv2.INTER_NEAREST)
        for x in (mask, np.ascontiguousarray(cells[: size[1], : size[0]]))
    )
    gray = cv2.cvtColor(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return [small, overlay(small, ids, labels), blend(gray, cells, 0.7)]


def _bar(
    draw: ImageDraw.ImageDraw, box: tuple[float, ...], shares: np.ndarray, explanation: Explanation
) -> None:
    """A bar in ``box`` (left, top, right, bottom), divided; parts with room have their percent."""
    left, top, right, bottom = box
    ends = left + (right - left) * np.concatenate([[0], np.cumsum(shares)])
    for name, share, begin, end in zip(explanation.names, shares, ends, ends[1:]):
        if share:
            color = color_of(name)
            draw.rectangle((begin, top, end, bottom), fill=color)
            if end - begin > 48:
                light = sum(color) > 380
                place = (begin + end) / 2, (top + bottom) / 2
                fill = INK if light else (255, 255, 255)
                draw.text(place, f"{100 * share:.0f} %", fill=fill, font_size=13, anchor="mm")

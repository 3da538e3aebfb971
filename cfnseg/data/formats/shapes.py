"""Procedural scenes with exact masks: the built-in data set, which needs no download.

Two classes are background (sky above a wavy horizon, ground below) and six are shapes. Colours and
textures do not depend on the shape, so a model has to see form. Sky and ground often look alike, so
it also has to see place. One seed decides everything through uniform numbers and fixed-point
drawing: a scene is the same in every run, and differs between processors by a rounding at most.
"""

from __future__ import annotations

import colorsys
import functools
from typing import ClassVar

import cv2
import numpy as np

from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError

VOID = 255  # raw id of the outline around objects and of the unlabelled blobs
CLASSES: list[tuple[int, str, tuple[int, int, int]]] = [
    (0, "sky", (120, 180, 235)),
    (1, "ground", (130, 110, 80)),
    (2, "disc", (225, 60, 60)),
    (3, "square", (60, 165, 75)),
    (4, "triangle", (250, 200, 40)),
    (5, "star", (165, 80, 200)),
    (6, "ring", (20, 75, 175)),
    (7, "cross", (245, 125, 175)),
]
SKY, GROUND, FIRST_SHAPE = 0, 1, 2
# circumradius relative to the drawn size: thin shapes are larger, for enough pixels of every class
REACH = {"disc": 0.85, "square": 1.0, "triangle": 1.15, "star": 1.2, "ring": 1.15, "cross": 1.15}

# Pairs of colours that a texture mixes. Both backgrounds also use SHARED_LOOKS: there only place
# separates them.
SKY_LOOKS = [
    ((74, 138, 214), (186, 216, 242)),
    ((232, 142, 92), (250, 212, 150)),
    ((38, 44, 84), (86, 84, 130)),
]
GROUND_LOOKS = [
    ((66, 112, 54), (128, 160, 78)),
    ((112, 82, 56), (156, 122, 88)),
    ((176, 92, 62), (206, 132, 92)),
]
SHARED_LOOKS = [
    ((146, 149, 153), (196, 198, 201)),  # overcast sky or pale concrete
    ((198, 178, 142), (228, 212, 182)),  # haze or sand
    ((74, 108, 138), (132, 166, 190)),  # dull blue sky or water
    ((204, 209, 216), (232, 235, 238)),  # white cloud or snow
]
FRACTION_BITS = 4  # polygon corners are integers in 1/16 pixel: exact, and smooth at small sizes


class ShapesDataset:
    """Scenes drawn on demand.

    Args:
        split: "train" (800 scenes), "val" (100) or "test" (100); no two splits share a scene.
    """

    sizes: ClassVar = {"train": 800, "val": 100, "test": 100}

    def __init__(self, split: str) -> None:
        if split not in self.sizes:
            raise UserError(f"shapes has no split {split!r}; there are {', '.join(self.sizes)}")
        self.first = 1_000_000 * list(self.sizes).index(split)
        self.labels = LabelMap(Label(*c) for c in CLASSES)
        self.names = [f"{split}_{i:04d}" for i in range(self.sizes[split])]

    def image(self, index: int) -> np.ndarray:
        """See `Dataset.image`."""
        return _scene(self.first + index)[0]

    def ids(self, index: int) -> np.ndarray:
        """See `Dataset.ids`."""
        return _scene(self.first + index)[1]


@functools.lru_cache(maxsize=1)  # image and ids are asked for one after the other
def _scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return render(seed)


def render(seed: int, size: tuple[int, int] = (192, 256)) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene.

    Args:
        seed: non-negative; the same seed and size give the same arrays.
        size: (H, W) in pixels, both at least 32; the objects scale with the shorter side.

    Returns:
        The image, uint8 (H, W, 3) RGB, and the mask, uint8 (H, W) of raw ids from CLASSES or 255
        (void).

    Raises:
        ValueError: a side is below 32 or the seed is negative.
    """
    height, width = size
    if min(height, width) < 32:
        raise ValueError(f"scene size {height}x{width}: both sides must be at least 32")
    rng = np.random.default_rng(seed)
    unit = min(height, width) / 192  # lengths below are in pixels of a scene 192 high
    image, mask = _background(rng, height, width, unit)
    light = rng.uniform(0, 2 * np.pi)

    count = int(rng.integers(5, 12))
    sizes = 8 * 6.0 ** rng.random(count)  # log-uniform: 8 to 48
    # far to near: mostly large behind small, but not always, so that any shape may be occluded
    sizes = sizes[np.argsort(-sizes * rng.uniform(0.4, 1.6, count))]
    centres: list[np.ndarray] = []
    for length in sizes:
        centre = _free_place(rng, centres, height, width)
        centres.append(centre)
        raw_id = int(rng.integers(FIRST_SHAPE, len(CLASSES)))
        radius = max(length * unit, 3.5)
        _paint(
            rng,
            image,
            mask,
            raw_id,
            _polygons(rng, CLASSES[raw_id][1], centre, radius),
            light,
            unit,
        )
    if rng.random() < 0.2:  # something nobody labelled
        centre = _free_place(rng, centres, height, width)
        _paint(
            rng,
            image,
            mask,
            VOID,
            _polygons(rng, "blob", centre, rng.uniform(10, 26) * unit),
            light,
            unit,
        )
    return _expose(rng, image), mask


def _background(
    rng: np.random.Generator, height: int, width: int, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sky over ground: image (H, W, 3) in 0..255 and mask (H, W) uint8 of SKY and GROUND."""
    x = np.arange(width) / width
    horizon = np.full(width, rng.uniform(0.32, 0.66))
    for amplitude, waves in ((0.05, 1.5), (0.02, 5.0)):
        horizon += (
            amplitude
            * rng.random()
            * np.sin(2 * np.pi * (waves * rng.uniform(0.5, 1.5) * x + rng.random()))
        )
    below = np.arange(height)[:, None] >= np.rint(horizon * height)[None, :]
    # one side is brighter, either one: the horizon is visible, but brightness reveals no side
    contrast = rng.uniform(0.07, 0.17) * (1 if rng.random() < 0.5 else -1)
    sides = []
    for looks, factor in ((SKY_LOOKS, 1 + contrast), (GROUND_LOOKS, 1 - contrast)):
        pool = looks + SHARED_LOOKS
        low, high = pool[int(rng.integers(len(pool)))]
        kind = rng.choice(["plain", "gradient", "noise", "noise", "stripes"])
        sides.append(
            _mix(low, high, _texture(rng, kind, height, width, rng.uniform(10, 40) * unit)) * factor
        )
    image = np.where(below[..., None], sides[1], sides[0])
    return image, np.where(below, np.uint8(GROUND), np.uint8(SKY))


def _free_place(
    rng: np.random.Generator, taken: list[np.ndarray], height: int, width: int
) -> np.ndarray:
    """The one of three random points (x, y) that is farthest from those taken, to limit overlap."""
    points = (0.05 + 0.9 * rng.random((3, 2))) * (
        width,
        height,
    )  # not at the rim: a sliver has no shape
    if not taken:
        return points[0]
    gaps = np.square(points[:, None] - np.array(taken)[None]).sum(-1).min(1)
    return points[int(gaps.argmax())]


def _polygons(
    rng: np.random.Generator, name: str, centre: np.ndarray, radius: float
) -> list[np.ndarray]:
    """Outlines (K, 2) of x, y of a shape, randomly stretched and turned; a ring's hole is last."""

    def around(corners: int, radii: float | np.ndarray = 1.0) -> np.ndarray:
        angle = (
            2 * np.pi * (np.arange(corners) + 0.5) / corners
        )  # half a step: a stretched square is a rectangle
        return np.stack([np.cos(angle), np.sin(angle)], 1) * np.reshape(radii, (-1, 1))

    def cross() -> np.ndarray:
        arm = rng.uniform(0.28, 0.36)
        corner, turn = np.array([[1, -arm], [1, arm], [arm, arm]]), np.array([[0, 1], [-1, 0]])
        return np.concatenate([corner @ np.linalg.matrix_power(turn, k) for k in range(4)])

    outlines = {
        "disc": lambda: [around(48)],
        "square": lambda: [around(4)],
        "triangle": lambda: [around(3)],
        "star": lambda: [around(10, np.tile([1, rng.uniform(0.42, 0.52)], 5))],
        "ring": lambda: [around(48), around(48, rng.uniform(0.42, 0.56))],
        "cross": lambda: [cross()],
        "blob": lambda: [around(14, rng.uniform(0.55, 1.0, 14))],
    }[name]()
    angle = rng.uniform(0, 2 * np.pi)
    rotate = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretch = np.array([1.0, rng.uniform(0.78, 1.0)])
    return [
        outline * stretch @ rotate * radius * REACH.get(name, 1.0) + centre for outline in outlines
    ]


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    mask: np.ndarray,
    raw_id: int,
    outlines: list[np.ndarray],
    light: float,
    unit: float,
) -> None:
    """Paint one textured, lit object, its shadow and its void outline, in place."""
    low, high = outlines[0].min(0), outlines[0].max(0)
    towards = np.array([np.cos(light), np.sin(light)])
    shift = -towards * 0.1 * (high - low).max()
    # A box around object and shadow, which may leave the image. OpenCV smears a filled polygon
    # along the edge of its canvas, so the polygon is filled first and cropped afterwards.
    margin = np.abs(shift) + 3
    left, top = np.floor(low - margin).astype(int)
    right, bottom = np.ceil(high + margin).astype(int)
    box = np.s_[max(top, 0) : bottom, max(left, 0) : right]
    height, width = mask[box].shape

    def fill(offset: np.ndarray) -> np.ndarray:
        cover = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(
            cover, [_fixed(o - (left, top) + offset) for o in outlines], 255, shift=FRACTION_BITS
        )
        return cover[max(-top, 0) :, max(-left, 0) :][:height, :width]

    shadow = cv2.blur(fill(shift), (5, 5)).astype(np.float32) / 255
    cover = fill(np.zeros(2)) > 0
    kind = rng.choice(["plain", "gradient", "stripes", "checks", "noise"])
    field = _texture(rng, kind, height, width, rng.uniform(4, 11) * unit)
    skin = (
        _mix(_colour(rng), _colour(rng), field)
        * (1 + 0.18 * _ramp(height, width, light))[..., None]
    )
    image[box] *= 1 - rng.uniform(0.15, 0.45) * shadow[..., None]
    np.copyto(image[box], skin, where=cover[..., None])
    np.copyto(mask[box], np.uint8(raw_id), where=cover)
    cv2.polylines(
        mask,
        [_fixed(o) for o in outlines],
        True,
        VOID,
        max(1, round(2 * unit)),
        shift=FRACTION_BITS,
    )


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points in pixels as OpenCV's fixed-point int32."""
    return np.rint(points * (1 << FRACTION_BITS)).astype(np.int32)


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """A random, rather saturated RGB colour in 0..255."""
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.25, 0.95), rng.uniform(0.35, 1.0))
    return 255 * r, 255 * g, 255 * b


def _mix(low: tuple[float, ...], high: tuple[float, ...], field: np.ndarray) -> np.ndarray:
    """The colours between low (field 0) and high (field 1): float32 (H, W, 3)."""
    start, end = np.array(low, np.float32), np.array(high, np.float32)
    return start + (end - start) * field[..., None]


def _texture(
    rng: np.random.Generator, kind: str, height: int, width: int, period: float
) -> np.ndarray:
    """A pattern (H, W) in 0..1 with details about ``period`` pixels wide."""
    period = max(period, 2.0)
    if kind == "plain":
        return np.full((height, width), rng.random(), np.float32)
    if kind == "noise":
        field = np.zeros((height, width), np.float32)
        for cell, weight in ((period, 0.7), (period / 3, 0.3)):
            coarse = rng.random((int(height / cell) + 2, int(width / cell) + 2), np.float32)
            field += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        return field
    angle = rng.uniform(0, 2 * np.pi)
    if kind == "gradient":
        return 0.5 + 0.5 * _ramp(height, width, angle)
    y, x = np.ogrid[:height, :width]
    along = (x * np.cos(angle) + y * np.sin(angle)) // period
    if kind == "checks":
        along = along + (y * np.cos(angle) - x * np.sin(angle)) // period
    return (along % 2).astype(np.float32)


def _ramp(height: int, width: int, angle: float) -> np.ndarray:
    """A plane (H, W) float32 that rises from -1 to 1 in the direction ``angle``."""
    across, down = np.cos(angle), np.sin(angle)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    return ((x * across + y * down) / (abs(across) + abs(down))).astype(np.float32)


def _expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The scene as a camera records it: uneven light, soft lens, noisy sensor; (H, W, 3) uint8."""
    height, width = image.shape[:2]
    light = rng.uniform(0.75, 1.05) + rng.uniform(0, 0.2) * _ramp(
        height, width, rng.uniform(0, 2 * np.pi)
    )
    lit = np.clip(image * light[..., None], 0, 255).astype(
        np.uint8
    )  # OpenCV's blur is bit-exact for uint8
    soft = cv2.GaussianBlur(lit, (3, 3), rng.uniform(0.4, 0.9))
    # the sum of two uniform bytes is nearly normal, and cheaper
    grain = rng.integers(0, 256, (2, *image.shape), np.uint8).astype(np.float32).sum(0) - 255
    return np.clip(soft + grain * (rng.uniform(2, 8) / 104), 0, 255).round().astype(np.uint8)

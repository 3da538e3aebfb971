"""What masks without plain ids mean: colours, a palette's gray, multiplied or shifted ids.

A form maps the values of such a mask to raw ids. One mask may fit several forms. So they are chosen
for all masks of a data set together, the one that explains most masks first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfnseg.data.decode import Mask
from cfnseg.data.formats import voc
from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.doctor.reading import MaskFacts, Record, pack_pixels
from cfnseg.errors import UserError

SMEAR = 32  # furthest that compression moves a channel of most pixels
CLEAR = 0.6  # least share of pixels near a class's colour in a smeared mask; a photograph has 0.1


@dataclass(frozen=True, eq=False)
class Form:
    """How a mask's values stand for raw ids. Two forms are equal iff they are the same object.

    Attributes:
        kind: of the finding.
        text: what has happened to the ids.
        table: value -> raw id.
        smeared: a value outside the table stands for the nearest colour's id.
    """

    kind: str
    text: str
    table: dict[int, int]
    smeared: bool = False

    def ids(self, values: np.ndarray) -> np.ndarray:
        """The raw ids of (n,) values, int64; -1 where the form has none."""
        if self is PLAIN:
            return values.astype(np.int64)
        if self.smeared:
            known = np.array(sorted(self.table))
            values = known[_distances(values, known).argmin(1)]
        return np.array([self.table.get(int(v), -1) for v in values], np.int64)


PLAIN = Form("", "", {})


def decoded(pixels: np.ndarray, form: Form | None) -> tuple[np.ndarray, np.ndarray]:
    """A mask's raw ids by its form: (n,) int64 ids, -1 = unknown, and each pixel's index (H, W).

    ``pixels`` are as `cfnseg.doctor.reading.open_mask` returns them. Without a form they are ids.
    """
    values, index = np.unique(pack_pixels(pixels), return_inverse=True)
    return (form or PLAIN).ids(values), index.reshape(pixels.shape[:2])


def train_ids(pixels: np.ndarray, form: Form | None, labels: LabelMap) -> np.ndarray:
    """A mask's train ids by its form, (H, W) uint8; `IGNORE` where ignored or unknown."""
    if pixels.ndim == 3 and form is None:
        return np.full(pixels.shape[:2], IGNORE, np.uint8)
    ids, index = decoded(pixels, form)
    column = {label.id: c for c, label in enumerate(labels.labels)}
    return np.array([column.get(i, IGNORE) for i in ids.tolist()], np.uint8)[index]


def pack(color: Sequence[int]) -> int:
    """A colour as 0xRRGGBB."""
    return int(color[0]) << 16 | int(color[1]) << 8 | int(color[2])


def channels(values: np.ndarray) -> np.ndarray:
    """(n, 3) int64 in 0..255 of n packed colours."""
    return np.asarray(values, np.int64)[:, None] >> np.array([16, 8, 0]) & 255


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(channels(a)[:, None] - channels(b)).max(-1)


def assign(masks: list[MaskFacts], labels: LabelMap) -> list[Form | None]:
    """The form of each mask: `PLAIN` if it has only known ids, None if nothing explains its values.

    Where all masks with ids fit a form that explains some of them, all get it: a mask of the one
    class 0 looks plain in any form.
    """
    forms: list[Form | None] = [None] * len(masks)
    known = {*(label.id for label in labels.labels), *labels.ignore}
    gray, deep, colored = (
        [i for i, m in enumerate(masks) if m.unexplained == kind]
        for kind in ("unknown-id", "mask-deep", "unknown-color")
    )
    gray = [i for i in gray if not masks[i].lossy]  # no form brings back ids that a JPEG blurred
    for i in gray:
        plain = PLAIN if known.issuperset(masks[i].values.tolist()) else None
        forms[i] = _reordered(masks[i], labels) or plain
    ids = [i for i in gray if forms[i] in (None, PLAIN)]
    if whole := _of_all([masks[i] for i in ids], labels):
        for i in ids:
            forms[i] = whole
    _explain(forms, masks, [i for i in gray if forms[i] is None], _gray_forms(labels), ids)
    wide = [
        Form(
            "mask-deep",
            f"each id was multiplied by {factor} when 8 bits became 16",
            {v * factor: v for v in known},
        )
        for factor in (257, 256)
    ]
    instances = {1000 * v + k: v for v in known for k in range(1000)}
    wide.append(
        Form(
            "mask-deep",
            "the values are instance ids, 1000 x class + number",
            {v: v for v in known if v} | instances,
        )
    )
    _explain(forms, masks, deep, wide)
    _explain(
        forms,
        masks,
        colored,
        [
            Form("mask-colors", "the colours are those of the classes", colour_table(labels)),
            Form(
                "mask-colors",
                "red, green and blue are equal and hold the id",
                {pack((v, v, v)): v for v in known},
            ),
        ],
    )
    for i in colored:
        forms[i] = forms[i] or _smeared(masks[i], labels)
    return forms


def _gray_forms(labels: LabelMap) -> list[Form]:
    """Forms of 8-bit masks; of two that explain the same, the likelier comes first."""
    ids = [label.id for label in labels.labels]
    top = max(ids)
    void = {255: 255} if 255 in labels.ignore else {}
    forms = []
    for factor in range(255 // max(1, top), 1, -1):
        table = void | {v * factor: v for v in (*labels.ignore, *ids) if v * factor <= 255}
        forms.append(Form("mask-scaled", f"each id is multiplied by {factor}", table))
    if len(ids) > 2:
        table = {cut(i * 255 / top): i for cut in (int, round) for i in ids}
        forms.append(Form("mask-scaled", f"the ids 0 to {top} are stretched to 0 to 255", table))
    for name, colors in (
        ("classes' colours", {x.id: x.color for x in labels.labels}),
        ("VOC palette's colours", {i: voc.color(i) for i in ids}),
    ):
        text = f"the gray values are the brightness of the {name}"
        forms.append(Form("mask-luminance", text, void | _grays(colors)))
    return forms


def colour_table(labels: LabelMap) -> dict[int, int]:
    """0xRRGGBB -> raw id, without colours that two classes share.

    White and black stand for ignored pixels unless a class has them.
    """
    colors = [pack(label.color) for label in labels.labels]
    table = dict.fromkeys((0xFFFFFF, 0), labels.void)
    table |= {c: label.id for c, label in zip(colors, labels.labels)}
    return {c: i for c, i in table.items() if colors.count(c) < 2}


def _explain(
    forms: list[Form | None],
    masks: list[MaskFacts],
    wrong: list[int],
    candidates: list[Form],
    everywhere: Sequence[int] = (),
) -> None:
    """Give the masks ``wrong`` the candidates that explain most of them, in place.

    A candidate that fits all of ``everywhere`` is given to all of them.
    """
    values = {i: set(masks[i].values.tolist()) for i in {*wrong, *everywhere}}
    while wrong:
        best, explained = PLAIN, []
        for form in candidates:
            fits = [i for i in wrong if form.table.keys() >= values[i]]
            if len(fits) > len(explained) and _evidence([values[i] for i in fits], form) >= 2:
                best, explained = form, fits
        if not explained:
            return
        if all(best.table.keys() >= values[i] for i in everywhere):
            explained = [*explained, *everywhere]
        for i in explained:
            forms[i] = best
        wrong = [i for i in wrong if forms[i] is None]


def _evidence(values: list[set[int]], form: Form) -> int:
    """How many classes the form shows, without those that have the same value in other forms."""
    if form.kind in ("mask-colors", "mask-deep"):
        return 2
    return len({form.table[v] for v in set().union(*values) if v not in (0, 255)})


def _of_all(masks: list[MaskFacts], labels: LabelMap) -> Form | None:
    """A form that only all masks together show: the two values 0 and 255, or ids from 1."""
    seen = {int(v) for mask in masks for v in mask.values}
    ids = [label.id for label in labels.labels]
    low, top = min(ids), max(ids)
    if seen == {0, 255} and 255 not in ids and len(ids) > 1:
        table = {0: low, 255: top} if len(ids) == 2 else {}
        return Form("mask-binary", "every mask has only the values 0 and 255", table)
    counted, shifted = seen - set(labels.ignore), {i + 1: i for i in ids}
    if top + 1 in counted and low not in counted and counted <= shifted.keys():
        return Form(
            "mask-shifted",
            f"ids count from {low + 1} where {low} is expected",
            {v: v for v in labels.ignore} | shifted,
        )
    return None


def _grays(colors: dict[int, tuple[int, int, int]]) -> dict[int, int]:
    """Gray value -> id of colours that went through gray.

    The gray is Pillow's: ITU-R BT.601 in 16-bit fixed point. Other programs may differ by one.
    """
    exact = {
        i: (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16 for i, (r, g, b) in colors.items()
    }
    grays = list(exact.values())
    table: dict[int, int] = {}
    for step in (0, -1, 1):
        for i, value in exact.items():
            if grays.count(value) == 1:
                table.setdefault(value + step, i)
    return table


def _reordered(mask: MaskFacts, labels: LabelMap) -> Form | None:
    """The form of a palette mask in which most ids have another class's colour.

    A program has sorted its palette anew.
    """
    if mask.palette is None or mask.values.max(initial=0) >= len(mask.palette):
        return None
    by_color = colour_table(labels)
    table = {v: by_color.get(pack(mask.palette[v]), -1) for v in mask.values.tolist()}
    wrong = sum(i not in (v, labels.void) for v, i in table.items())
    if -1 in table.values() or wrong < 2 or 2 * wrong <= len(table):
        return None
    return Form(
        "mask-palette",
        "the palette was sorted anew: its colours are the classes', in another order than the ids",
        table,
    )


def _smeared(mask: MaskFacts, labels: LabelMap) -> Form | None:
    """The form of a mask that was compressed like a photograph.

    Most pixels are near a class's colour, with many colours in between.
    """
    table = colour_table(labels)
    near = _distances(mask.values, np.array(sorted(table))).min(1) <= SMEAR
    photo_like = mask.lossy or mask.distinct > 2 * len(table)
    if not photo_like or mask.counts[near].sum() < CLEAR * mask.size[0] * mask.size[1]:
        return None
    return Form(
        "mask-lossy",
        "the colours are those of the classes, smeared by lossy compression",
        table,
        smeared=True,
    )


def two_meanings(records: list[Record], labels: LabelMap | None) -> dict[int, str]:
    """Index -> reason for the masks that `LabelMap.demand_one_meaning` refuses."""
    masks = {i: r.mask for i, r in enumerate(records) if isinstance(r.mask, MaskFacts)}
    ordinary = {records[i].pair.split for i, mask in masks.items() if mask.bits == 8}
    refused = {}
    for i, mask in masks.items():
        if labels and mask.bits < 8:
            pair = records[i].pair
            try:
                labels.demand_one_meaning(
                    Mask(mask.values.astype(np.uint8), mask.bits),
                    pair.mask,
                    pair.split not in ordinary,
                )
            except UserError as error:
                refused[i] = str(error).removeprefix(f"{pair.mask}: ")
    return refused

"""What masks mean that have no plain ids: colours, gray values of a palette, multiplied or shifted ids, 16 bits.

A form says which raw id each value of such a mask stands for. One mask may fit several: the forms are chosen for all masks
of a data set together, the one that explains most of them first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfnseg.data.formats import voc
from cfnseg.data.labels import LabelMap
from cfnseg.doctor.examine import MaskFacts

SMEAR = 32  # furthest that compression moves a channel of most pixels
CLEAR = 0.6  # share of the pixels that have to be near a class's colour in a smeared mask; a photograph has about 0.1


@dataclass(frozen=True, eq=False)
class Form:
    """How a mask's values stand for raw ids; two forms are equal if they are the same object.

    Attributes:
        kind: of the finding.
        text: what has happened to the ids.
        table: value -> raw id.
        smeared: values beside those of the table stand for the nearest colour's.
    """

    kind: str
    text: str
    table: dict[int, int]
    smeared: bool = False

    def ids(self, values: np.ndarray) -> np.ndarray:
        """The raw ids of values, int64; -1 where the form has none."""
        if self.smeared:
            known = np.array(sorted(self.table))
            nearest = np.abs(channels(values)[:, None] - channels(known)[None]).max(-1).argmin(1) if len(values) else values
            values = known[nearest]
        return np.array([self.table.get(int(v), -1) for v in values], np.int64)


PLAIN = Form("", "", {})


def pack(color: tuple[int, ...]) -> int:
    """A colour as 0xRRGGBB."""
    return int(color[0]) << 16 | int(color[1]) << 8 | int(color[2])


def channels(values: np.ndarray) -> np.ndarray:
    """(n, 3) int64 in 0..255 of n packed colours."""
    return np.stack([np.asarray(values, np.int64) >> shift & 255 for shift in (16, 8, 0)], -1)


def luminance(color: tuple[int, int, int]) -> int:
    """The gray that Pillow makes of a colour: ITU-R BT.601 in 16-bit fixed point."""
    return (color[0] * 19595 + color[1] * 38470 + color[2] * 7471 + 0x8000) >> 16


def assign(masks: list[MaskFacts], labels: LabelMap) -> list[Form | None]:
    """For each mask the form that it is in: `PLAIN` for ids that are all known, None if nothing explains its values.

    Where all masks with ids fit a form that explains some of them, it is taken for all: a mask of the one class 0 looks
    plain in any form.
    """
    forms: list[Form | None] = [None] * len(masks)
    known = {*(label.id for label in labels.labels), *labels.ignore}
    gray = [i for i, m in enumerate(masks) if not (m.colored or m.lossy or _deep(m))]  # nothing brings back ids that a JPEG has blurred
    deep = [i for i, m in enumerate(masks) if not m.colored and _deep(m)]
    colored = [i for i, m in enumerate(masks) if m.colored]
    for i in gray:
        if (palette := _reordered(masks[i], labels)) is not None:
            forms[i] = palette
        elif known.issuperset(masks[i].values.tolist()):
            forms[i] = PLAIN
    ids = [i for i in gray if forms[i] in (None, PLAIN)]
    if (whole := _of_all([masks[i] for i in ids], labels)) is not None:
        for i in ids:
            forms[i] = whole
    _explain(forms, masks, [i for i in gray if forms[i] is None], gray_forms(labels), everywhere=ids)
    _explain(forms, masks, deep, deep_forms(labels))
    _explain(forms, masks, colored, colour_forms(labels))
    for i in colored:
        if forms[i] is None:
            forms[i] = _smeared(masks[i], labels)
    return forms


def gray_forms(labels: LabelMap) -> list[Form]:
    """Forms of 8-bit masks, the likelier of two that explain the same first."""
    ids = [label.id for label in labels.labels]
    void = {255: 255} if 255 in labels.ignore else {}
    forms = []
    for factor in range(255 // max(1, max(ids)), 1, -1):
        table = void | {v * factor: v for v in (*labels.ignore, *ids) if v * factor <= 255}
        forms.append(Form("mask-scaled", f"each id is multiplied by {factor}", table))
    if len(ids) > 2:
        top = max(ids)
        forms.append(Form("mask-scaled", f"the ids 0 to {top} are stretched to 0 to 255",
                          {value: i for round_ in (int, round) for i in ids for value in [round_(i * 255 / top)]}))
    own = {label.id: label.color for label in labels.labels}
    colormaps = (("classes' colours", own), ("VOC palette's colours", {i: voc.color(i) for i in ids}))
    for name, colors in colormaps:
        forms.append(Form("mask-luminance", f"the gray values are the brightness of the {name}", void | _grays(colors)))
    return forms


def deep_forms(labels: LabelMap) -> list[Form]:
    """Forms of masks with values above 255."""
    known = [*(label.id for label in labels.labels), *labels.ignore]
    return [Form("mask-deep", "each id was multiplied by 257 when 8 bits became 16", {v * 257: v for v in known}),
            Form("mask-deep", "each id was multiplied by 256 when 8 bits became 16", {v * 256: v for v in known}),
            Form("mask-deep", "the values are instance ids, 1000 x class + number",
                 {v: v for v in known if v} | {1000 * v + k: v for v in known for k in range(1000)})]


def colour_forms(labels: LabelMap) -> list[Form]:
    """Forms of masks with colours."""
    known = [*(label.id for label in labels.labels), *labels.ignore]
    return [Form("mask-colors", "the colours are those of the classes", colour_table(labels)),
            Form("mask-colors", "red, green and blue are equal and hold the id", {pack((v, v, v)): v for v in known})]


def colour_table(labels: LabelMap) -> dict[int, int]:
    """0xRRGGBB -> raw id; white and black stand for ignored pixels unless a class has them, and a colour that two have for none."""
    colors = [pack(label.color) for label in labels.labels]
    table = {pack(rgb): labels.void for rgb in ((255, 255, 255), (0, 0, 0))}
    table |= {c: label.id for c, label in zip(colors, labels.labels)}
    return {c: i for c, i in table.items() if colors.count(c) < 2}


def _explain(forms: list[Form | None], masks: list[MaskFacts], wrong: list[int], candidates: list[Form],
             everywhere: Sequence[int] = ()) -> None:
    """Give the masks ``wrong`` the candidates that explain most of them, in place; to all of ``everywhere`` one that fits them all."""
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
    """How many classes are seen through the form, without those whose value would be the same in another."""
    if form.kind in ("mask-colors", "mask-deep"):
        return 2
    return len({form.table[v] for v in set().union(*values) if v not in (0, 255)})


def _deep(mask: MaskFacts) -> bool:
    return mask.values.dtype.kind == "f" or bool(len(mask.values) and (mask.values.min() < 0 or mask.values.max() > 255))


def _of_all(masks: list[MaskFacts], labels: LabelMap) -> Form | None:
    """A form that only all masks together show: two values 0 and 255, or ids that count from 1."""
    seen = {int(v) for mask in masks for v in mask.values}
    ids = [label.id for label in labels.labels]
    if seen == {0, 255} and 255 not in ids and len(ids) > 1:
        table = {0: min(ids), 255: max(ids)} if len(ids) == 2 else {}
        return Form("mask-binary", "every mask has only the values 0 and 255", table)
    counted = seen - set(labels.ignore)
    shifted = {i + 1: i for i in ids}
    if max(ids) + 1 in counted and min(ids) not in counted and counted <= shifted.keys():
        table = {v: v for v in labels.ignore} | shifted
        return Form("mask-shifted", f"ids count from {min(ids) + 1} where {min(ids)} is expected", table)
    return None


def _grays(colors: dict[int, tuple[int, int, int]]) -> dict[int, int]:
    """Gray value -> id of colours that went through gray; other programs round differently by one."""
    table: dict[int, int] = {}
    exact = {i: luminance(color) for i, color in colors.items()}
    for step in (0, -1, 1):
        for i, value in exact.items():
            if list(exact.values()).count(value) == 1:
                table.setdefault(value + step, i)
    return table


def _reordered(mask: MaskFacts, labels: LabelMap) -> Form | None:
    """The form of a palette mask whose palette gives most of its ids another class's colour: a program sorted the palette anew."""
    if mask.palette is None or not len(mask.values) or mask.values.max() >= len(mask.palette):
        return None
    by_color, table = colour_table(labels), {}
    for value in mask.values.tolist():
        table[value] = by_color.get(pack(mask.palette[value]), -1)
    wrong = [v for v, i in table.items() if i not in (v, -1) and i != labels.void]
    if -1 in table.values() or len(wrong) < 2 or 2 * len(wrong) <= len(table):
        return None
    return Form("mask-palette", "the palette was sorted anew: its colours are the classes', in another order than the ids", table)


def _smeared(mask: MaskFacts, labels: LabelMap) -> Form | None:
    """The form of a mask that was compressed like a photograph: most pixels near a class's colour, many colours in between."""
    table = colour_table(labels)
    known = channels(np.array(sorted(table)))
    distance = np.abs(channels(mask.values)[:, None] - known[None]).max(-1).min(1)
    photo_like = mask.lossy or mask.distinct > 2 * len(table)
    if not photo_like or mask.counts[distance <= SMEAR].sum() < CLEAR * mask.size[0] * mask.size[1]:
        return None
    return Form("mask-lossy", "the colours are those of the classes, smeared by lossy compression", table, smeared=True)

"""What is wrong with the values of the masks, and the classes.txt or the copy that would mend it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from cfnseg.data.decode import Mask
from cfnseg.data.labels import LabelMap
from cfnseg.doctor.classes import written
from cfnseg.doctor.examine import MOST, MaskFacts, Record
from cfnseg.doctor.findings import ERROR, Finding, few, many
from cfnseg.doctor.forms import PLAIN, Form, channels, colour_table
from cfnseg.doctor.scan import Scan
from cfnseg.errors import UserError

EXPECTED = "one id per pixel: an 8-bit gray or palette PNG of the ids of the classes, or of ignored ones"
TITLES = {"mask-colors": "masks with colours in place of ids", "mask-lossy": "masks that lossy compression has blurred",
          "mask-scaled": "masks with multiplied ids", "mask-luminance": "masks with gray values of a palette in place of ids",
          "mask-deep": "masks with 16-bit values", "mask-palette": "masks whose palette was sorted anew",
          "mask-bits": "masks of few bits a pixel, whose ids may be two things",
          "mask-binary": "masks of 0 and 255", "mask-shifted": "masks whose ids are shifted by one"}
REMAPPED = ("mask-scaled", "mask-luminance", "mask-binary", "mask-shifted")  # other ids in classes.txt mend these
VOID_LINES = 32  # most ids that a proposal ignores: more are no labels


def mask_findings(found: Scan, records: list[Record], forms: list[Form | None]) -> list[Finding]:
    """Findings about values, each kind with the form it is in.

    Args:
        found: the data set; labels are known.
        records: of all pairs.
        forms: of each record's mask; see `cfnseg.doctor.forms.assign`.
    """
    labels = found.labels
    assert labels is not None
    groups: dict[tuple[str, Form | None], list[int]] = defaultdict(list)
    undecided = two_meanings(found, records)
    texts: dict[tuple[str, str], list[Form]] = defaultdict(list)
    for index, (record, form) in enumerate(zip(records, forms)):
        if isinstance(record.mask, str):
            groups["mask-unreadable", None].append(index)
        elif record.mask is None:
            continue
        elif index in undecided:
            groups["mask-bits", None].append(index)
        elif record.mask.lossy and (form is None or form is PLAIN):
            groups["mask-lossy", None].append(index)
        elif form is None:
            groups[unexplained(record.mask), None].append(index)
        elif form is not PLAIN:
            known = texts[form.kind, form.text]  # palettes and smears have a table of their own in each mask
            known.append(form)
            groups[form.kind, known[0]].append(index)
    findings = []
    for (kind, form), group in groups.items():
        files = [found.shown(records[i].pair.mask) for i in group]
        masks = [records[i].mask for i in group]
        if kind == "mask-unreadable":
            text = f"{records[group[0]].pair.mask.name}: {masks[0]}."
            findings.append(Finding(kind, ERROR, "masks that cannot be read", text, EXPECTED, files,
                                    ["get these files again", "{mend}  # leaves them out"], pairs=group))
        elif kind == "mask-bits":
            text = f"{records[group[0]].pair.mask.name}: {undecided[group[0]]}."
            findings.append(Finding(kind, ERROR, TITLES[kind], text, EXPECTED, files,
                                    ["save all masks with 8 bits a pixel", "{mend}  # leaves these out"], pairs=group))
        elif form is not None:
            findings.append(_recognised(found, records, forms, form, group, files))
        elif kind == "mask-lossy":
            text = ("Such a file, as a JPEG is, does not keep ids: at every edge there are values between those of the two classes, "
                    "which are other classes.")
            findings.append(Finding(kind, ERROR, TITLES[kind], text, EXPECTED, files,
                                    ["get the masks as they were before compression", "{mend}  # leaves them out"], pairs=group))
        elif kind == "unknown-id":
            findings.append(_unknown_ids(found, masks, files, group))
        elif kind == "unknown-color":
            findings.append(_unknown_colors(labels, masks, files, group))
        else:
            top = max(m.values.max() for m in masks)
            text = f"The values go up to {top:,}, and no rule makes ids of the classes from them."
            findings.append(Finding("mask-deep", ERROR, TITLES["mask-deep"], text, EXPECTED, files,
                                    ["write the masks again with the ids in classes.txt"], pairs=group))
    return findings


def two_meanings(found: Scan, records: list[Record]) -> dict[int, str]:
    """The masks of few bits a pixel that `LabelMap.demand_one_meaning` refuses, and why."""
    if found.labels is None:
        return {}
    ordinary = {r.pair.split for r in records if isinstance(r.mask, MaskFacts) and r.mask.bits == 8}
    refused = {}
    for index, record in enumerate(records):
        if isinstance(record.mask, MaskFacts) and record.mask.bits < 8:
            try:
                mask = Mask(record.mask.values.astype(np.uint8), record.mask.bits)
                found.labels.demand_one_meaning(mask, record.pair.mask, record.pair.split not in ordinary)
            except UserError as error:
                refused[index] = str(error).removeprefix(f"{record.pair.mask}: ")
    return refused


def remap(labels: LabelMap, form: Form, masks: list[MaskFacts]) -> dict[int, int] | None:
    """Raw id -> value in the masks, for a classes.txt that reads them as they are; None if an id has two values or none."""
    seen = {int(v) for mask in masks for v in mask.values}
    ids: dict[int, int] = {}
    for known in [*(label.id for label in labels.labels), *labels.ignore]:
        values = [value for value, i in form.table.items() if i == known]
        used = [value for value in values if value in seen]
        if len(used) > 1 or (not values and known != 255):
            return None
        if values:
            ids[known] = (used or values)[0]
    classes = [ids[label.id] for label in labels.labels if label.id in ids]
    return ids if len(set(classes)) == len(labels) and max(classes) <= 255 else None


def _recognised(found: Scan, records: list[Record], forms: list[Form | None], form: Form, group: list[int], files: list[str]) -> Finding:
    labels, masks = found.labels, [records[i].mask for i in group]
    text = f"{form.text[0].upper()}{form.text[1:]}"
    everything = all(f is form for f, r in zip(forms, records) if isinstance(r.mask, MaskFacts))
    mend, classes = [], ""
    if form.kind == "mask-binary":
        text += "; 255 is ignored unless a class has it, so there is nothing to be told from 0"
        if not form.table:
            mend = [f"get the masks that tell the {len(labels)} classes apart"]
    if form.kind == "mask-shifted":
        text += " (mmsegmentation undoes it with reduce_zero_label)"
    if form.table:
        text += f": {_table(labels, form, masks)}"
        ids = remap(labels, form, masks) if everything and found.data.name == "folder" and form.kind in REMAPPED else None
        if ids:
            classes = written(labels, found.void, ids)
        mend.append("{mend}")
    if form.kind == "mask-lossy":
        text += ". Edges will be wrong by a pixel or two: the masks as they were before compression are better"
    return Finding(form.kind, ERROR, TITLES[form.kind], f"{text}.", EXPECTED, files, mend, classes, pairs=group)


def _table(labels: LabelMap, form: Form, masks: list[MaskFacts]) -> str:
    """Which value is which class, of those that occur, the most frequent first."""
    names = {label.id: f"{label.id} {label.name}" for label in labels.labels}
    pixels: dict[int, int] = defaultdict(int)
    for mask in masks:
        for value, count in zip(mask.values.tolist(), mask.counts.tolist()):
            pixels[value] += count
    values = [v for v in sorted(pixels, key=lambda v: -pixels[v]) if v in form.table and form.table[v] in names]
    shown = [f"{_value(v, masks[0].colored)} is {names[form.table[v]]}" for v in values]
    return few(shown) if shown else "only ignored pixels"


def _value(value: int, colored: bool) -> str:
    return str(tuple(channels(np.array([value]))[0].tolist())) if colored else str(value)


def unexplained(mask: MaskFacts) -> str:
    """The kind of finding for a mask that is in no form."""
    if mask.colored:
        return "unknown-color"
    return "mask-deep" if mask.values.dtype.kind == "f" or mask.values.min() < 0 or mask.values.max() > 255 else "unknown-id"


def _unknown_ids(found: Scan, masks: list[MaskFacts], files: list[str], group: list[int]) -> Finding:
    labels = found.labels
    ids = [label.id for label in labels.labels]
    pixels: dict[int, list[int]] = defaultdict(list)
    for mask in masks:
        for value, count in zip(mask.values.tolist(), mask.counts.tolist()):
            if value not in ids and value not in labels.ignore:
                pixels[value].append(count)
    order = sorted(pixels, key=lambda value: -sum(pixels[value]))
    shown = [f"id {v} ({many(sum(pixels[v]), 'pixel')} in {many(len(pixels[v]), 'mask')})" for v in order]
    text = f"No class and not ignored: {few(shown)}. The classes have the ids {min(ids)} to {max(ids)}."
    if max(ids) + 1 in pixels:
        text += (f" {max(ids) + 1} is one more than the last: either a class is missing in classes.txt, or the masks count from "
                 f"{min(ids) + 1} and {min(ids)} is unlabelled (mmsegmentation's reduce_zero_label); then every class's line needs an id "
                 "one higher.")
    if 0 in pixels and 0 not in ids and max(ids) not in {int(v) for m in masks for v in m.values}:
        text += f" 0 occurs and {max(ids)} does not: the masks may count from 0 where classes.txt counts from {min(ids)}."
    mend, classes = [], ""
    if len(pixels) <= VOID_LINES and found.data.name == "folder":
        classes = written(labels, found.void, more_void=sorted(pixels))
        mend = ["give them names in classes.txt", "{mend}  # ignores them"]
    else:
        text += " So many values are no ids: they look like a photograph's, or like a blurred or resized mask's."
    return Finding("unknown-id", ERROR, "masks with unknown ids", text, EXPECTED, files, mend, classes, pairs=group)


def _unknown_colors(labels: LabelMap, masks: list[MaskFacts], files: list[str], group: list[int]) -> Finding:
    table = colour_table(labels)
    pixels: dict[int, int] = defaultdict(int)
    for mask in masks:
        for value, count in zip(mask.values.tolist(), mask.counts.tolist()):
            if value not in table:
                pixels[value] += count
    shown = [f"{_value(v, True)} ({many(pixels[v], 'pixel')})" for v in sorted(pixels, key=lambda v: -pixels[v])]
    if max(mask.distinct for mask in masks) > MOST:
        text = "They have thousands of colours: photographs, perhaps images and labels that changed places."
        mend = ["put masks in labels/ and photographs in images/"]
        return Finding("unknown-color", ERROR, "masks that look like photographs", text, EXPECTED, files, mend, pairs=group)
    text = f"They have colours in place of ids, and these are in no line of classes.txt: {few(shown)}."
    return Finding("unknown-color", ERROR, "masks with colours that are no class's", text, EXPECTED, files,
                   ["give each class its colour in classes.txt, then run this again"], pairs=group)

"""What the doctor writes: a classes.txt as it should be, and a fixed copy of the data set."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from cfnseg.data.files import name_key, read_text
from cfnseg.data.formats.voc import color
from cfnseg.data.labels import Label, LabelMap
from cfnseg.doctor.findings import ERROR, WARNING, Case, Finding
from cfnseg.doctor.forms import PLAIN, decoded, two_meanings
from cfnseg.doctor.images import fitted, mismatch
from cfnseg.doctor.reading import open_mask
from cfnseg.errors import UserError
from cfnseg.report.text import write_text
from cfnseg.storage import write_atomic

EXPECTED = (
    "a line `id name r g b` for each class, numbers in 0..255, each id, name and colour "
    "once; the name void ignores an id"
)
VOID_LINES = 32  # most ids that a proposal ignores: more are no labels
HELD = "held out"


def read_leniently(case: Case, path: Path) -> None:
    """Take classes and void lines from ``path`` where `cfnseg.data.labels.read_classes` refuses it.

    Faults become findings; the first has a corrected text. Without any class, nothing changes.
    """
    kept: list[Label] = []
    void: list[Label] = []
    faults: list[Finding] = []

    def say(severity: str, title: str, text: str) -> None:
        faults.append(Finding("classes-file", severity, title, text, EXPECTED, files=[path.name]))

    try:
        text = read_text(path)
    except UserError as error:
        text = _guessed_text(path.read_bytes())
        reason = str(error).removeprefix(f"{path}, ").removeprefix(f"{path}: ")
        say(
            ERROR,
            "classes.txt is not in UTF-8",
            f"{reason}. The corrected file takes it for Windows-1252 or UTF-16: look at its names.",
        )
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#")[0].strip()
        label, exact = _parse(content)
        if content and not exact:
            means = f" It seems to mean `{_line(label)}`." if label else ""
            say(
                ERROR,
                f"classes.txt, line {number} cannot be read",
                f"The line is {line.strip()!r}.{means}",
            )
        if label is None:
            continue
        if label.name.lower() == "void":
            void.append(label)
            continue
        if other := next((x for x in kept if x.id == label.id), None):
            say(
                ERROR,
                f"id {label.id} names two classes in classes.txt",
                f"{other.name} and, in line {number}, {label.name}. Only the masks' maker knows "
                "which it is; the corrected file keeps the first.",
            )
            continue
        if other := next((x for x in kept if x.name == label.name), None):
            say(
                ERROR,
                f"two classes are called {label.name} in classes.txt",
                f"They have the ids {other.id} and {label.id}.",
            )
            label = dataclasses.replace(label, name=f"{label.name}_{label.id}")
        if other := next((x for x in kept if x.color == label.color), None):
            say(
                WARNING,
                f"{other.name} and {label.name} have the same colour in classes.txt",
                f"Pictures cannot distinguish them, and masks in the colour {label.color} cannot "
                "be read as ids.",
            )
            taken = {x.color for x in kept}
            free = next(c for c in map(color, range(1, 256)) if c not in taken)
            label = dataclasses.replace(label, color=free)
        kept.append(label)
    if not kept:
        return
    ids = {label.id for label in kept}
    if both := [x.id for x in void if x.id in ids]:
        say(WARNING, f"id {both[0]} is a class and void in classes.txt", "It counts as the class.")
    case.void = [x for x in void if x.id not in ids]
    case.labels = LabelMap(kept, ({255} | {x.id for x in void}) - ids)
    if faults:
        faults[0] = dataclasses.replace(faults[0], classes=classes_txt(case))
    case.findings += faults


def _guessed_text(data: bytes) -> str:
    """Text that is neither UTF-8 nor has a byte-order mark, without unprintable characters."""
    encoding = "cp1252"
    if b"\0" in data:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    text = data.decode(encoding, errors="replace").replace("\ufffd", "?")
    return "".join(sign for sign in text if sign.isprintable() or sign in "\r\n\t")


def _parse(content: str) -> tuple[Label | None, bool]:
    """A line's label, or None, and whether the line is as `read_classes` wants it."""
    words = [f for f in re.split(r"[\s,;:=]+", content) if f]
    numbers = [int(f) for f in words if re.fullmatch(r"[0-9]{1,3}", f)]
    name = name_key("_".join(f for f in words if not re.fullmatch(r"[0-9]{1,3}", f)))
    name = "".join(sign for sign in name if sign.isprintable())
    if not name or not numbers or max(numbers) > 255 or len(numbers) not in (1, 4):
        return None, False
    label = Label(numbers[0], name, tuple(numbers[1:]) or color(numbers[0]))
    fields = content.split()
    return label, len(fields) == 5 and [name_key(f) for f in fields] == _line(label).split()


def _line(label: Label) -> str:
    return f"{label.id} {label.name} {' '.join(map(str, label.color))}"


def guess_classes(case: Case) -> None:
    """Without a usable classes.txt: the finding, and classes by the masks' ids and colours."""
    plain = [m for m in case.masks.values() if not m.colored]
    values = sorted({int(v) for m in plain for v in m.values} - {255})
    if values and values[0] >= 0 and values[-1] < 255:
        palette = next((m.palette for m in plain if m.palette is not None), None)
        colors = [
            color(v) if palette is None or v >= len(palette) else tuple(palette[v].tolist())
            for v in values
        ]
        if len(set(colors)) < len(colors):
            colors = [color(v) for v in values]
        case.labels = LabelMap([Label(v, f"class_{v}", c) for v, c in zip(values, colors)])
    case.add(
        "classes-file",
        ERROR,
        "there is no usable classes.txt",
        f"The masks have the ids {', '.join(map(str, values[:40]))}." if values else "",
        "classes.txt in the data set's folder, with a line `id name r g b` for each class",
        files=["classes.txt"],
        classes=classes_txt(case) if case.labels else "",
    )


def classes_txt(
    case: Case, ids: dict[int, int] | None = None, more_void: Iterable[int] = ()
) -> str:
    """The text of a classes.txt.

    Args:
        case: its classes, ignored ids and void lines are used.
        ids: id -> the masks' id, for classes and ignored ids with another id in the masks.
        more_void: ids to be ignored as well.
    """
    own = {i: i for i in range(256)} | (ids or {})
    classes = [dataclasses.replace(x, id=own[x.id]) for x in case.labels.labels]
    void = {i: (0, 0, 0) for i in (*(own[i] for i in case.labels.ignore), *more_void)}
    void |= {own[x.id]: x.color for x in case.void}
    for i in (255, *(x.id for x in classes)):
        void.pop(i, None)
    ignored = [Label(i, "void", c) for i, c in sorted(void.items())]
    return "".join(f"{_line(label)}\n" for label in (*classes, *ignored))


def write_fixed(case: Case, out: Path) -> dict[str, int]:
    """Write a folder data set; its images, and masks that are right already, are links.

    Left out are pairs with a file that is missing, unreadable or not understood, second images for
    one mask, and training images with the pixels of a validation image. Unknown ids become ignored
    ones. The old data set does not change.

    Args:
        case: what was examined.
        out: a new or empty folder.

    Returns:
        How many pairs were "linked", "written" anew and "left_out".

    Raises:
        UserError: ``out`` has files in it or cannot be written, or no pair is usable.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} has files in it; give --fix a new or empty folder", code=2)
    roles = [case.roles[pair.split] for pair in case.pairs]
    validated = {x.digest for i, x in case.images.items() if roles[i] == "val"}
    taken: set[tuple[str, str]] = set()
    unknown: set[int] = set()
    done = {"linked": 0, "written": 0, "left_out": 0}
    usable = set(_usable(case))
    for i, pair in enumerate(case.pairs):
        split = pair.split.removesuffix(f", {HELD}")
        copied = roles[i] != "val" and i in usable and case.images[i].digest in validated
        if copied or i not in usable or (split, pair.name) in taken:
            done["left_out"] += 1
            continue
        taken.add((split, pair.name))
        _link(pair.image, out / "images" / split / f"{pair.name}{pair.image.suffix}")
        path, why = out / "labels" / split / f"{pair.name}.png", mismatch(case, i)
        plain = case.forms[i] in (None, PLAIN)
        if plain:
            unknown |= _unknown(case, i)
        if plain and why is None and pair.mask.suffix.lower() == ".png":
            _link(pair.mask, path)
            done["linked"] += 1
        else:
            _write_mask(case, i, path)
            done["written"] += 1
    if not taken:
        raise UserError("there is no pair that a copy could have")
    write_text(out / "classes.txt", classes_txt(case, more_void=unknown))
    return done


def _usable(case: Case) -> Iterable[int]:
    """The pairs whose image and mask could be read, with a mask that means one thing."""
    undecided = two_meanings(case.records, case.labels)
    for i, mask in case.masks.items():
        pair, form = case.pairs[i], case.forms[i]
        if not case.labels or pair.drawn or i not in case.images or i in undecided:
            continue
        if form is None:
            known = mask.unexplained == "unknown-id" and len(_unknown(case, i)) <= VOID_LINES
        else:
            known = form is PLAIN or bool(form.table)
        why = mismatch(case, i)
        if known and (mask.colored or not mask.lossy) and (why is None or why.fixable):
            yield i


def _unknown(case: Case, index: int) -> set[int]:
    """The ids of a mask that are neither a class nor ignored."""
    known = {*(label.id for label in case.labels.labels), *case.labels.ignore}
    return set(case.masks[index].values.tolist()) - known


def _link(source: Path, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(source.resolve())
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} could not be made a link to {source} ({reason})") from None


def _write_mask(case: Case, index: int, path: Path) -> None:
    """Write a mask by its form, at its image's size; what the form does not know is ignored."""
    ids, at = decoded(open_mask(case.pairs[index].mask)[0], case.forms[index])
    raw = np.where(ids < 0, case.labels.void, ids).astype(np.uint8)[at]
    picture = Image.fromarray(fitted(case, index, raw), mode="P")
    picture.putpalette(case.labels.palette().tobytes())
    write_atomic(path, lambda temporary: picture.save(temporary, format="PNG"))

"""classes.txt, read for what it means where `cfnseg.data.labels.read_classes` refuses it, and written as it should be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cfnseg.data.files import name_key, read_text
from cfnseg.data.formats.voc import color
from cfnseg.data.labels import Label, LabelMap
from cfnseg.doctor.findings import ERROR, WARNING, Finding
from cfnseg.errors import UserError

EXPECTED = "a line `id name r g b` for each class, numbers in 0..255, each id, name and colour once; the name void ignores an id"


@dataclass(frozen=True)
class Classes:
    """The lines that can be understood.

    Attributes:
        labels: classes and ignored ids.
        void: the lines named void.
        findings: what is wrong.
        changed: some line would have to be written in another way.
    """

    labels: LabelMap
    void: list[Label] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    changed: bool = False


def read_leniently(path: Path) -> Classes | None:
    """What ``path`` says; None if no line names a class."""
    kept: list[Label] = []
    void: list[Label] = []
    findings, changed = [], False

    def say(severity: str, title: str, text: str) -> None:
        findings.append(Finding("classes-file", severity, title, text, EXPECTED, [path.name]))

    try:
        text = read_text(path)
    except UserError as error:
        changed = True
        text = _guessed_text(path.read_bytes())
        say(ERROR, "classes.txt is not in UTF-8", f"{str(error).removeprefix(f'{path}, ').removeprefix(f'{path}: ')}. The corrected file "
            "takes it for Windows-1252 or UTF-16: look at its names.")
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#")[0].strip()
        if not content:
            continue
        label, exact = _parse(content)
        if not exact:
            changed = True
            say(ERROR, f"classes.txt, line {number} cannot be read", f"The line is {line.strip()!r}."
                + (f" It seems to mean `{_line(label)}`." if label else ""))
        if label is None:
            continue
        if label.name.lower() == "void":
            void.append(label)
            continue
        if (other := next((x for x in kept if x.id == label.id), None)) is not None:
            changed = True
            say(ERROR, f"id {label.id} names two classes in classes.txt", f"{other.name} and, in line {number}, {label.name}. Only the "
                "masks' maker knows which it is; the corrected file keeps the first.")
            continue
        if other := next((x for x in kept if x.name == label.name), None):
            changed = True
            say(ERROR, f"two classes are called {label.name} in classes.txt", f"They have the ids {other.id} and {label.id}.")
            label = Label(label.id, f"{label.name}_{label.id}", label.color)
        if other := next((x for x in kept if x.color == label.color), None):
            changed = True
            say(WARNING, f"{other.name} and {label.name} have the same colour in classes.txt",
                f"Pictures cannot tell them apart, and masks in the colour {label.color} cannot be read as ids.")
            label = Label(label.id, label.name, _unused({x.color for x in kept}))
        kept.append(label)
    if not kept:
        return None
    ids = {label.id for label in kept}
    if both := [x.id for x in void if x.id in ids]:
        changed = True
        say(WARNING, f"id {both[0]} is a class and void in classes.txt", "It counts as the class.")
        void = [x for x in void if x.id not in ids]
    return Classes(LabelMap(kept, ({255} | {x.id for x in void}) - ids), void, findings, changed)


def _guessed_text(data: bytes) -> str:
    """Text without a byte-order mark that is no UTF-8; signs that no name can have are left out."""
    encoding = "cp1252"
    if b"\0" in data:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    text = data.decode(encoding, errors="replace").replace("\ufffd", "?")
    return "".join(sign for sign in text if sign.isprintable() or sign in "\r\n\t")


def _parse(content: str) -> tuple[Label | None, bool]:
    """A line's label, or None, and whether the line is as `read_classes` wants it."""
    fields = content.split()
    words = [f for f in re.split(r"[\s,;:=]+", content) if f]
    numbers = [int(f) for f in words if re.fullmatch(r"[0-9]{1,3}", f)]
    name = name_key("_".join(f for f in words if not re.fullmatch(r"[0-9]{1,3}", f)))
    name = "".join(sign for sign in name if sign.isprintable())
    if not name or not numbers or max(numbers) > 255 or len(numbers) not in (1, 4):
        return None, False
    label = Label(numbers[0], name, tuple(numbers[1:]) or color(numbers[0]))
    return label, [name_key(f) for f in fields] == _line(label).split() and len(fields) == 5


def _line(label: Label) -> str:
    return f"{label.id} {label.name} {' '.join(str(v) for v in label.color)}"


def _unused(taken: set[tuple[int, int, int]]) -> tuple[int, int, int]:
    return next(color(i) for i in range(1, 256) if color(i) not in taken)


def guessed(values: list[int], palette: np.ndarray | None) -> LabelMap:
    """Classes for the ids that masks have, coloured as their palette is, where nothing else is known."""
    labels = [Label(v, f"class_{v}", tuple(int(c) for c in palette[v]) if palette is not None and v < len(palette) else color(v))
              for v in values]
    if len({x.color for x in labels}) < len(labels):
        labels = [Label(x.id, x.name, color(x.id)) for x in labels]
    return LabelMap(labels, {255} - set(values))


def written(labels: LabelMap, void: list[Label], ids: dict[int, int] | None = None, more_void: list[int] | None = None) -> str:
    """The text of a classes.txt.

    Args:
        labels: the classes.
        void: lines of ignored ids that have a colour of their own.
        ids: the id that masks have for a class, where it is another.
        more_void: ids that are to be ignored as well.
    """
    ids = ids or {}
    classes = [Label(ids.get(x.id, x.id), x.name, x.color) for x in labels.labels]
    taken = {x.id for x in classes}
    named = {i: (0, 0, 0) for i in (*(ids.get(i, i) for i in labels.ignore), *(more_void or ()))}
    named |= {ids.get(x.id, x.id): x.color for x in void}
    ignored = [Label(i, "void", c) for i, c in sorted(named.items()) if i not in taken and i != 255]
    return "".join(f"{_line(label)}\n" for label in (*classes, *ignored))

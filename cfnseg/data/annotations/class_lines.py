"""Which id each class of an export has: its own order, or the lines of a file."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from cfnseg.data.annotations.regions import Annotations
from cfnseg.data.files import name_key, read_text
from cfnseg.data.formats.voc import color
from cfnseg.data.labels import IGNORE, Label, LabelMap, parse_classes
from cfnseg.errors import UserError


@dataclass(frozen=True)
class Classes:
    """Classes to write.

    Attributes:
        labels: of classes.txt.
        ids: by the export's class name, merged names included; ignored ones have `IGNORE`.
        background: the id of pixels in no region.
    """

    labels: LabelMap
    ids: dict[str, int]
    background: int

    def text(self) -> str:
        """classes.txt."""
        return "".join(
            f"{x.id} {x.name} {x.color[0]} {x.color[1]} {x.color[2]}\n" for x in self.labels.labels
        )


def one_word(name: str) -> str:
    """A class name as classes.txt can have it: ``_`` for spaces and ``#``, none at its ends."""
    return re.sub(r"[\s#]+", "_", name_key(name)).strip("_") or "_"


def own_classes(annotations: Annotations) -> Classes:
    """The export's classes in its order, after the background; void is ignored.

    A class has the export's colour, or the next of VOC's that none has.

    Raises:
        UserError: more than 255 classes, or two names that differ in spaces alone.
    """
    names = [n for n in annotations.names if n.lower() != "void"]
    ground = annotations.background
    if ground is not None:
        names = [ground, *(n for n in names if n != ground)]
    if not names:
        raise UserError("the export has no class")
    if len(names) > 255:
        raise UserError(
            f"the export has {len(names):,} classes, a mask has room for 255; merge or ignore some "
            "with --classes FILE"
        )
    words: dict[str, str] = {}
    for name in names:
        if (other := words.setdefault(one_word(name), name)) != name:
            raise UserError(f"the classes {other!r} and {name!r} are both {one_word(name)}")
    taken = {annotations.colors[n] for n in names if n in annotations.colors}
    free = (c for c in map(color, itertools.count(0 if ground else 1)) if c not in taken)
    used: set[tuple[int, int, int]] = set()
    labels = []
    for index, (word, name) in enumerate(words.items()):
        chosen = annotations.colors.get(name)
        if chosen is None or chosen in used:
            chosen = next(free)
        used.add(chosen)
        labels.append(Label(index, word, chosen))
    ids = {name: x.id for name, x in zip(words.values(), labels)}
    ids |= {n: IGNORE for n in annotations.names if n.lower() == "void"}
    return Classes(LabelMap(labels), ids, IGNORE if ground is None else ids[ground])


def chosen_classes(path: Path, annotations: Annotations) -> Classes:
    """The classes of a file with lines ``id name r g b = other name, another``.

    A line takes the class of its own name and those after ``=``; a line named void ignores them.

    Raises:
        UserError: a wrong line; a class of the export that no line names, or two lines name.
    """
    lines = [line.split("#")[0].partition("=") for line in read_text(path).splitlines()]
    labels = parse_classes("\n".join(left for left, _, _ in lines), path)
    takes: dict[str, int] = {}
    for number, (left, _, right) in enumerate(lines, 1):
        if not left.strip():
            continue
        index, own = left.split()[:2]
        others = [name_key(x.strip()) for x in right.split(",") if x.strip()]
        value = IGNORE if own.lower() == "void" else int(index)
        for name in dict.fromkeys([name_key(own), *others]):
            if takes.setdefault(name, value) != value:
                raise UserError(f"{path}, line {number}: {name} is named by another line too")
    every = dict.fromkeys(annotations.names)
    if annotations.background is not None:
        every = dict.fromkeys([annotations.background]) | every
    ids = {n: takes.get(name_key(n).strip(), takes.get(one_word(n))) for n in every}
    ids |= {n: IGNORE for n, i in ids.items() if i is None and n.lower() == "void"}
    if missing := [n for n, i in ids.items() if i is None]:
        raise UserError(
            f"{path}: no line names {len(missing)} of the export's classes: "
            f"{', '.join(missing[:20])}; add them after the = of a line, of one called void to "
            "ignore them"
        )
    known = {n: i for n, i in ids.items() if i is not None}
    ground = IGNORE if annotations.background is None else known[annotations.background]
    return Classes(labels, known, ground)

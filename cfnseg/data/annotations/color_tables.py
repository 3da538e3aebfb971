"""Tables from a mask's values to class names: classes.txt, CSV, Roboflow's and CVAT's."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from cfnseg.data.files import read_text
from cfnseg.errors import UserError

VOID = "void"  # pixels of this name are ignored
HEADERS = ("name", "class", "class name", "label")


@dataclass(frozen=True)
class Table:
    """What a mask's values mean.

    Attributes:
        path: of the file.
        colors: (r, g, b) -> class name.
        ids: value of a gray or palette mask -> class name.
    """

    path: Path
    colors: dict[tuple[int, int, int], str]
    ids: dict[int, str]

    @property
    def names(self) -> list[str]:
        """Each class once, in the file's order."""
        return list(dict.fromkeys([*self.ids.values(), *self.colors.values()]))


def find_table(folder: Path) -> Table | None:
    """The table in a folder or directly below it; None without one. Raises UserError as `read`."""
    for pattern in ("labelmap.txt", "_classes.csv", "classes.txt", "*.csv"):
        for path in (*sorted(folder.glob(pattern)), *sorted(folder.glob(f"*/{pattern}"))):
            if (table := read_table(path)).names:
                return table
    return None


def read_table(path: Path) -> Table:
    """Read a table.

    * ``name:r,g,b:parts:actions`` a line: CVAT's labelmap.txt.
    * ``id name r g b`` a line, and what follows ``=`` left out: classes.txt. Ids up to 65535.
    * CSV with a header: a name (name, class, label) and r, g, b (also red, green, blue), an id
      (id, index, value, pixel value), or both.

    Raises:
        UserError: the first line of another form, or a colour or id that has two names.
    """
    lines = [line.split("#")[0].strip() for line in read_text(path).splitlines()]
    if path.suffix.lower() == ".csv":
        rows = _csv_rows(path)
    elif any(":" in line for line in lines):
        rows = _labelmap_rows(path, lines)
    else:
        rows = _class_rows(path, lines)
    table = Table(path, {}, {})
    for number, name, color, index in rows:
        for known, key in ((table.colors, color), (table.ids, index)):
            if key is not None and known.setdefault(key, name) != name:
                raise UserError(f"{path}, line {number}: {key} is {name} and {known[key]}")
    return table


Row = tuple[int, str, "tuple[int, int, int] | None", "int | None"]  # line, name, colour, id


def _labelmap_rows(path: Path, lines: list[str]) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        name, _, rest = line.partition(":")
        rows.append((number, name, _color(rest.split(":")[0].split(","), path, number, line), None))
    return rows


def _class_rows(path: Path, lines: list[str]) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        fields = line.partition("=")[0].split()
        if not fields:
            continue
        if len(fields) != 5 or not fields[0].isdecimal() or int(fields[0]) > 65535:
            raise UserError(f"{path}, line {number}: expected `id name r g b`, got {line!r}")
        color = _color(fields[2:], path, number, line)
        void = fields[1].lower() == VOID  # the colour of such a line is a mere filling
        rows.append((number, fields[1], None if void else color, int(fields[0])))
    return rows


def _csv_rows(path: Path) -> list[Row]:
    text = read_text(path)
    mark = max(",;\t", key=text.split("\n", 1)[0].count)
    records = [
        [field.strip() for field in row] for row in csv.reader(io.StringIO(text), delimiter=mark)
    ]
    head = [field.lower() for field in records[0]] if records else []
    at = {
        kind: next((head.index(name) for name in names if name in head), None)
        for kind, names in {
            "name": HEADERS,
            "r": ("r", "red"),
            "g": ("g", "green"),
            "b": ("b", "blue"),
            "id": ("pixel value", "value", "id", "index"),
        }.items()
    }
    colored = None not in (at["r"], at["g"], at["b"])
    if at["name"] is None or not (colored or at["id"] is not None):
        return []  # a CSV of something else
    rows: list[Row] = []
    for number, row in enumerate(records[1:], 2):
        if not any(row):
            continue
        line = mark.join(row)
        try:
            index = None if at["id"] is None else int(row[at["id"]])
            color = _color([row[at[c]] for c in "rgb"], path, number, line) if colored else None
            rows.append((number, row[at["name"]], color, index))
        except (IndexError, ValueError):
            raise UserError(
                f"{path}, line {number}: expected {mark.join(head)}, got {line!r}"
            ) from None
    return rows


def _color(fields: list[str], path: Path, number: int, line: str) -> tuple[int, int, int]:
    numbers = [int(f) for f in fields if f.strip().isdecimal() and int(f) <= 255]
    if len(fields) != 3 or len(numbers) != 3:
        raise UserError(f"{path}, line {number}: expected r, g, b in 0..255 in {line!r}")
    red, green, blue = numbers
    return red, green, blue

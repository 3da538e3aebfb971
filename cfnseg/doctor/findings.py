"""What the doctor finds: faults, and what is worth knowing, each with its files and its fixes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from cfnseg.config import Data
from cfnseg.data.labels import Label, LabelMap
from cfnseg.doctor.forms import Form
from cfnseg.doctor.reading import ImageFacts, MaskFacts, Pair, Record
from cfnseg.metrics.place import Place
from cfnseg.report.text import share

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = {ERROR: "bold red", WARNING: "bold yellow", NOTE: "bold blue"}  # first the worst
LISTED = 100  # files that doctor.json names for one finding; the text and the page name FEW
FEW = 5


@dataclass(frozen=True)
class Finding:
    """One fault, or something worth knowing.

    Attributes:
        kind: its name for programs, such as "mask-colors".
        severity: "error": a run stops, or its score is wrong. "warning": a run works, but probably
            not as meant. "note": worth knowing.
        title: one line.
        text: what was found, and its cause.
        expected: what should be there.
        files: the files with the fault, relative to the data set's folder.
        fix: config lines, commands or steps; each one fixes it alone. ``{fix}`` stands for the
            command that writes a fixed copy.
        classes: the text of a classes.txt that fixes it.
        pairs: indices of the pairs whose pictures show it.
        twins: pairs of such indices, to be shown side by side.
    """

    kind: str
    severity: str
    title: str
    text: str = ""
    expected: str = ""
    fix: Sequence[str] = ()
    files: Sequence[str] = ()
    classes: str = ""
    pairs: Sequence[int] = ()
    twins: Sequence[tuple[int, int]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Its part of doctor.json."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "text": self.text,
            "expected": self.expected,
            "count": len(self.files),
            "files": list(self.files[:LISTED]),
            "fix": list(self.fix),
            "classes_txt": self.classes or None,
        }


@dataclass
class Case:
    """A data set under examination.

    Attributes:
        data: the config's section.
        root: the data set's folder; None if its images are drawn.
        roles: split -> "train", "val" or "other".
        labels: None if the data set does not say.
        void: the lines of classes.txt that ignore an id.
        pairs, findings: so far.
        records: one per pair; see `take`.
        images, masks: pair index -> facts, of the files that could be read.
        forms: one per pair; None without a mask, or if nothing explains it.
        rows: (pairs, C + 2) int64 pixels of each class, ignored, unknown.
        place: what the place explains; None if it cannot be told.
        mirrored: names of classes that are left and right.
    """

    data: Data
    root: Path | None
    roles: dict[str, str]
    labels: LabelMap | None = None
    void: list[Label] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    images: dict[int, ImageFacts] = field(default_factory=dict)
    masks: dict[int, MaskFacts] = field(default_factory=dict)
    forms: list[Form | None] = field(default_factory=list)
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    place: Place | None = None
    mirrored: list[tuple[str, str]] = field(default_factory=list)

    def take(self, records: list[Record]) -> None:
        """Keep what was read of all pairs, in their order."""
        self.records = records
        self.images = {i: r.image for i, r in enumerate(records) if isinstance(r.image, ImageFacts)}
        self.masks = {i: r.mask for i, r in enumerate(records) if isinstance(r.mask, MaskFacts)}
        self.forms = [None] * len(records)
        self.rows = np.zeros((len(records), 2), np.int64)

    def add(
        self,
        kind: str,
        severity: str,
        *args: Any,
        images: Sequence[int] | None = None,
        masks: Sequence[int] | None = None,
        **more: Any,
    ) -> None:
        """Add a `Finding`.

        Args:
            kind, severity, args, more: see `Finding`.
            images, masks: indices of the pairs whose image or mask has it, in place of files and
                pairs. Without any, nothing is found.
        """
        pairs = images if masks is None else masks
        if pairs:
            which = "image" if masks is None else "mask"
            more |= {"pairs": pairs, "files": self.files(pairs, which)}
        if pairs is None or pairs:
            self.findings.append(Finding(kind, severity, *args, **more))

    def files(self, pairs: Iterable[int], which: str = "image") -> list[str]:
        """The image or mask files of pairs; <split>/<name> where the images are drawn."""
        found = [(self.pairs[i], getattr(self.pairs[i], which)) for i in pairs]
        return [self.shown(path) if path else f"{p.split}/{p.name}" for p, path in found]

    def shown(self, path: Path) -> str:
        """A path, relative to the data set's folder if it lies there."""
        inside = self.root and path.is_relative_to(self.root)
        return path.relative_to(self.root).as_posix() if inside else str(path)

    def members(self, split: str) -> list[int]:
        """The indices of a split's pairs."""
        return [i for i, pair in enumerate(self.pairs) if pair.split == split]

    def role(self, index: int) -> str:
        """The role of a pair's split."""
        return self.roles[self.pairs[index].split]


def many(count: int, word: str) -> str:
    """A count with its noun: "1 mask", "2,000 masks"."""
    plural = {"class": "classes", "copy": "copies"}.get(word, f"{word}s")
    return f"{count:,} {word if count == 1 else plural}"


def few(names: Sequence[str], count: int | None = None) -> str:
    """The first names, and how many of ``count`` (None = all names) follow."""
    rest = (len(names) if count is None else count) - FEW
    return ", ".join(names[:FEW]) + (f" and {rest:,} more" if rest > 0 else "")


def verdict(report: dict[str, Any]) -> str:
    """How many findings of each severity."""
    counts = report["counts"]
    if not counts["error"] and not counts["warning"]:
        notes = f" ({many(counts['note'], 'note')})" if counts["note"] else ""
        return f"Nothing is wrong with it{notes}."
    return ", ".join(many(counts[s], s) for s in SEVERITIES) + "."


def tell(report: dict[str, Any], console: Console) -> None:
    """Print the content of doctor.json (`cfnseg.doctor.examine_data`), on a terminal in colour."""

    def say(*parts: str | tuple[str, str]) -> None:
        console.print(Text.assemble(*parts), soft_wrap=True)

    splits = ", ".join(f"{s['name']} {s['pairs']:,}" for s in report["splits"])
    say(
        (f"{report['data']}{' in ' + report['root'] if report['root'] else ''}", "bold"),
        f": pairs of image and mask: {splits or 'none'}",
    )
    for finding in report["findings"]:
        severity, count = finding["severity"], finding["count"]
        say(
            "\n",
            (severity, SEVERITIES[severity]),
            " ",
            (f"{finding['title']}{f' ({count:,})' if count else ''}", "bold"),
            (f"  [{finding['kind']}]", "dim"),
        )
        expected = "" if severity == NOTE else finding["expected"]
        lines = [
            ("", "", finding["text"]),
            ("expected: ", "dim", expected),
            ("files: ", "dim", few(finding["files"], count)),
            *(("fix: ", "green", line) for line in finding["fix"]),
        ]
        if finding["classes_txt"]:
            lines.append(("fix: ", "green", "a classes.txt that fits:"))
        for name, style, value in lines:
            if value:
                say("  ", (name, style), value)
        if finding["classes_txt"]:
            say(*(f"    {line}\n" for line in finding["classes_txt"].splitlines()))
    if report["classes"]:
        say("\n", ("share of the counted pixels (images with the class)", "bold"))
        say(*_histogram(report))
    say((verdict(report), "bold"))


def _histogram(report: dict[str, Any]) -> list[str]:
    splits = report["splits"]
    rows = [("", "id ", *(s["name"] for s in splits))]
    for i, c in enumerate(report["classes"]):
        own = [s["classes"][i] for s in splits]
        rows.append(
            (c["name"], f"{c['id']:3d}", *(f"{share(k['share'])} ({k['images']:,})" for k in own))
        )
    rows.append(("ignored", "", *(share(s["ignored_share"]) for s in splits)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]
        )
        + "\n"
        for row in rows
    ]

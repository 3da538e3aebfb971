"""What the doctor says: findings, each with the files it is about and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass, field

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)
LISTED = 100  # files that doctor.json names for one finding; the text and the page name FEW
FEW = 5


@dataclass(frozen=True)
class Finding:
    """One fault, or something worth knowing.

    Attributes:
        kind: its name for programs, such as "mask-colors".
        severity: "error": a run stops, or its score is wrong. "warning": it runs, but probably not as meant. "note": worth knowing.
        title: one line.
        text: what was found, and how it comes about.
        expected: what should be there.
        files: those it is about, relative to the data set's folder.
        mend: config lines, commands or steps, any one of which mends it. ``{mend}`` stands for the command that writes a mended copy.
        classes: the text of a classes.txt that mends it.
        pairs: indices of the pairs whose pictures show it.
        twins: pairs of such indices, to be shown side by side.
    """

    kind: str
    severity: str
    title: str
    text: str
    expected: str = ""
    files: list[str] = field(default_factory=list)
    mend: list[str] = field(default_factory=list)
    classes: str = ""
    pairs: list[int] = field(default_factory=list, kw_only=True)
    twins: list[tuple[int, int]] = field(default_factory=list, kw_only=True)

    def to_dict(self) -> dict:
        """What doctor.json holds of it."""
        return {"kind": self.kind, "severity": self.severity, "title": self.title, "text": self.text, "expected": self.expected,
                "count": len(self.files), "files": self.files[:LISTED], "mend": self.mend, "classes_txt": self.classes or None}


def ordered(findings: list[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; otherwise as they were found."""
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


def many(count: int, word: str) -> str:
    """A count with its noun: "1 mask", "2,000 masks"."""
    plural = {"class": "classes", "copy": "copies"}.get(word, f"{word}s")
    return f"{count:,} {word if count == 1 else plural}"


def few(names: list[str]) -> str:
    """The first names, and how many there are beyond."""
    rest = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {rest:,} more" if rest > 0 else "")

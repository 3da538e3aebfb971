"""The two sides of a comparison, read from their report.json, and the images that both have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfnseg.data.files import existing
from cfnseg.errors import UserError

AGAIN = "Score again with cfnseg eval."
KINDS = {"pixel": "a segmentation (mIoU)", "image": "a classification (top-1 error)"}


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        name: the run folder's name, or the report folder's.
        report: the report.json.
        content: what it holds.
        run: the run folder that made it, or None.
        settings: the content of the run's config.json; {} without a run.
        level: "pixel" or "image", as model.level.
        facts: what was scored, by the report.
        classes: their names, in the order of train ids.
        images: the report's row of each image, by name.
    """

    name: str
    report: Path
    content: dict[str, Any]
    run: Path | None
    settings: dict[str, Any]
    level: str
    facts: dict[str, str]
    classes: list[str]
    images: dict[str, dict[str, Any]]


def read_side(path: Path) -> Side:
    """Read a run folder, a report's folder, or a report.json.

    Raises:
        UserError: no report is there, or it has no counts of each image.
    """
    existing(path, "the run", "Give a run folder, a report's folder, or a report.json.")
    report = path
    if path.is_dir():
        places = [path / "report" / "report.json", path / "report.json"]
        report = next((place for place in places if place.is_file()), None)
        if report is None:
            near = ", ".join(sorted(p.name + "/" * p.is_dir() for p in path.iterdir())[:8])
            raise UserError(
                f"{path} has neither report/report.json nor report.json; it has "
                f"{near or 'nothing'}. A run writes its report when it ends. {AGAIN}"
            )
    content = _read_json(report)
    _check(report, content)
    folder, facts = report.resolve().parent, content.get("facts", {})
    return Side(
        folder.parent.name if folder.name == "report" else folder.name,
        report,
        content,
        *_run_of(path, report, facts),
        "image" if "top1_error" in content else "pixel",
        facts,
        [row["name"] for row in content["classes"]],
        {row["name"]: row for row in content["images"]},
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def _check(path: Path, content: Any) -> None:
    """UserError unless ``content`` is a report with the rows that a comparison needs."""
    try:
        needed = {"truth", "prediction", "rank"} if "top1_error" in content else {"counts"}
        lacking = [row["name"] for row in content["images"] if not needed <= row.keys()]
        complete = all(row["name"] for row in content["classes"])
    except (TypeError, KeyError, AttributeError):
        complete = False
    if not complete:
        raise UserError(
            f"{path} is no report of cfnseg: expected classes and images, each with a name. {AGAIN}"
        )
    if content.get("output") == "sigmoid":
        raise UserError(
            f"{path} is of sigmoid outputs, whose classes may overlap; compare takes softmax "
            "outputs alone",
            code=2,
        )
    if lacking:
        raise UserError(
            f"{path} does not say what was counted in each image ({lacking[0]} has no "
            f"{', '.join(sorted(needed))}): it is of an older cfnseg. {AGAIN}"
        )


def _run_of(path: Path, report: Path, facts: dict[str, str]) -> tuple[Path | None, dict[str, Any]]:
    """The run folder of a report, and its settings.

    It is the named folder, the one around the report, or the one with the weights.
    """
    places = [path] * path.is_dir()
    if "weights" in facts:
        places += [report.resolve().parents[1], Path(facts["weights"]).parent]
    for place in places:
        if (place / "config.json").is_file():
            settings = _read_json(place / "config.json")
            if isinstance(settings, dict) and {"model", "data"} <= settings.keys():
                return place, settings
    return None, {}


def match(a: Side, b: Side) -> list[str]:
    """The names of the images that both have, sorted: the order in a report changes nothing.

    Raises:
        UserError: a segmentation against a classification, other classes, no image in common, or
            other truths.
    """
    if a.level != b.level:
        raise UserError(
            f"{a.report} is of {KINDS[a.level]}, {b.report} of {KINDS[b.level]}; "
            "compare two of one kind",
            code=2,
        )
    if a.classes != b.classes:
        raise UserError(
            f"the classes differ: {_other_classes(a, b)}; scores compare only over the "
            "same classes",
            code=2,
        )
    rows, others = a.images, b.images
    names = sorted(rows.keys() & others.keys())
    if not names:
        have = [
            f"{side.report} ({len(r)} images, first {next(iter(r), 'none')})"
            for side, r in ((a, rows), (b, others))
        ]
        raise UserError(
            f"{' and '.join(have)} have no image in common; score both on the same split", code=2
        )
    if other := [n for n in names if _truth(rows[n], a.level) != _truth(others[n], a.level)]:
        raise UserError(
            f"the truth of {len(other)} of {len(names)} images differs between "
            f"{a.report} and {b.report}, first {other[0]}; score both against the same "
            "truth",
            code=2,
        )
    return names


def _truth(row: dict[str, Any], level: str) -> Any:
    return row["truth"] if level == "image" else row["counts"][1]


def _other_classes(a: Side, b: Side) -> str:
    lists = a.classes, b.classes
    only = [[name for name in ours if name not in theirs] for ours, theirs in (lists, lists[::-1])]
    if not any(only):
        place, one, two = next(
            (i, *pair) for i, pair in enumerate(zip(*lists)) if pair[0] != pair[1]
        )
        return f"class {place} is {one!r} in {a.report} and {two!r} in {b.report}"
    return " and ".join(
        f"{', '.join(map(repr, names[:5]))}{' ...' * (len(names) > 5)} only in {side.report}"
        for names, side in zip(only, (a, b))
        if names
    )

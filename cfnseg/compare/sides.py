"""The two sides of a comparison, read from their report.json, and the images that both have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfnseg.data.files import existing
from cfnseg.errors import UserError

AGAIN = "Score again with tools/eval_seg.py (image-level nets: tools/eval_cls.py)."


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        name: what the person calls it: the run's folder, or the report's.
        report: the report.json.
        content: what it holds.
        run: the run folder that made it, or None if there is none to be found.
        settings: what the run's config.json holds; {} without a run.
    """

    name: str
    report: Path
    content: dict[str, Any]
    run: Path | None
    settings: dict[str, Any]

    @property
    def facts(self) -> dict[str, str]:
        """What was scored, as the report says it."""
        return self.content.get("facts", {})

    @property
    def level(self) -> str:
        """ "pixel" or "image", as model.level."""
        return "image" if "top1_error" in self.content else "pixel"

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of train ids."""
        return [row["name"] for row in self.content["classes"]]

    @property
    def images(self) -> dict[str, dict[str, Any]]:
        """The report's row of each image, by name."""
        return {row["name"]: row for row in self.content["images"]}


def read_side(path: Path) -> Side:
    """Read a run folder, a report's folder, or a report.json.

    Raises:
        UserError: there is none, it is no report of cfnseg, or one without what was counted in each image.
    """
    existing(path, "the run", "Give a run folder, a report's folder, or a report.json.")
    if path.is_dir():
        report = next((p for p in (path / "report" / "report.json", path / "report.json") if p.is_file()), None)
        if report is None:
            near = ", ".join(sorted(p.name + "/" * p.is_dir() for p in path.iterdir())[:8])
            raise UserError(f"{path} has neither report/report.json nor report.json; it has {near or 'nothing'}. A run writes its "
                            f"report when it ends. {AGAIN}")
    else:
        report = path
    content = _read_json(report)
    _check(report, content)
    run, settings = _run_of(path, report, content.get("facts", {}))
    folder = report.resolve().parent
    return Side(folder.parent.name if folder.name == "report" else folder.name, report, content, run, settings)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def _check(path: Path, content: Any) -> None:
    """UserError unless ``content`` is that of a report, with what this comparison needs of it."""
    try:
        needed = {"truth", "prediction", "rank"} if "top1_error" in content else {"counts"}
        lacking = [row["name"] for row in content["images"] if not needed <= row.keys()]
        complete = all(row["name"] for row in content["classes"])
    except (TypeError, KeyError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{path} is no report of cfnseg: expected classes and images, each with a name. {AGAIN}")
    if lacking:
        raise UserError(f"{path} does not say what was counted in each image ({lacking[0]} has no {', '.join(sorted(needed))}): it is of "
                        f"an older cfnseg. {AGAIN}")


def _run_of(path: Path, report: Path, facts: dict[str, str]) -> tuple[Path | None, dict[str, Any]]:
    """The run folder of a report and its settings: what was named, what is around the report, or where the weights lie."""
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
    """The names of the images that both have, sorted, so that the order of either report changes nothing.

    Raises:
        UserError: a report of masks against one of image labels, other classes, no image in common, or other truths.
    """
    if a.level != b.level:
        what = {"pixel": "a segmentation (mIoU)", "image": "image labels (top-1 error)"}
        raise UserError(f"{a.report} is of {what[a.level]}, {b.report} of {what[b.level]}; compare two of one kind", code=2)
    if a.classes != b.classes:
        raise UserError(f"the classes differ: {_other_classes(a, b)}; scores compare only over the same classes", code=2)
    rows, others = a.images, b.images
    names = sorted(rows.keys() & others.keys())
    if not names:
        have = [f"{side.report} ({len(r)} images, first {next(iter(r), 'none')})" for side, r in ((a, rows), (b, others))]
        raise UserError(f"{' and '.join(have)} have no image in common; score both on the same split", code=2)
    if other := [n for n in names if _truth(rows[n], a.level) != _truth(others[n], a.level)]:
        raise UserError(f"the truth of {len(other)} of {len(names)} images differs between {a.report} and {b.report}, first {other[0]}; "
                        "score both against the same masks or labels", code=2)
    return names


def _truth(row: dict[str, Any], level: str) -> Any:
    return row["truth"] if level == "image" else row["counts"][1]


def _other_classes(a: Side, b: Side) -> str:
    lists = a.classes, b.classes
    only = [[name for name in ours if name not in theirs] for ours, theirs in (lists, lists[::-1])]
    if not any(only):
        place = next(i for i, pair in enumerate(zip(*lists)) if pair[0] != pair[1])
        return f"class {place} is {lists[0][place]!r} in {a.report} and {lists[1][place]!r} in {b.report}"
    return " and ".join(f"{', '.join(map(repr, names[:5]))}{' ...' * (len(names) > 5)} only in {side.report}"
                        for names, side in zip(only, (a, b)) if names)

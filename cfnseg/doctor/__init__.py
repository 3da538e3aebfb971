"""The data doctor: reads every pair of a data set, names what is wrong, and how to fix it."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from cfnseg.config import Config
from cfnseg.data.formats.folder import layered_names
from cfnseg.data.labels import Label, LabelMap
from cfnseg.data.loader import parallel
from cfnseg.doctor import images, masks
from cfnseg.doctor.findings import FEW, SEVERITIES, Case, tell
from cfnseg.doctor.fix import guess_classes, write_fixed
from cfnseg.doctor.forms import assign
from cfnseg.doctor.page import doctor_page
from cfnseg.doctor.reading import examine
from cfnseg.doctor.scan import scan
from cfnseg.errors import UserError
from cfnseg.progress import progress
from cfnseg.report.text import write_json, write_text


def examine_data(
    config: Config,
    out: Path | None = None,
    workers: int = 0,
    fix: Path | None = None,
    command: str = "cfnseg doctor CONFIG",
) -> dict[str, Any]:
    """Read all pairs of a data set, print what is wrong, and write doctor.json and doctor.html.

    Args:
        config: data, model.encoder, name and runs are used.
        out: folder of the two files; None = <config.runs>/<config.name>/doctor.
        workers: processes that read (0 = this one).
        fix: a new folder for a fixed copy of the data set; see `cfnseg.doctor.fix.write_fixed`.
        command: the user's command, for the proposals.

    Returns:
        The content of doctor.json: ``data``, ``root``, ``counts`` (findings by severity),
        ``findings`` (`Finding.to_dict`), ``classes`` (id, name, color) and ``splits`` (name, role,
        pairs, classes (pixels, share in 0..1, images), ignored_share in 0..1, unknown pixels),
        ``place`` (`Place.to_dict`, or None) and ``mirrored`` (names of classes that are left and
        right, in pairs).

    Raises:
        UserError: the config of a classification; a folder that cannot be written. A fault of the
            data is a finding.
    """
    if config.model.level != "pixel":
        raise UserError(
            f"{config.name} has model.level image; the doctor examines pairs of image and mask",
            code=2,
        )
    out = out or Path(config.runs) / config.name / "doctor"
    console = Console(highlight=False)
    case = scan(config)
    _demand_ids(case)
    if config.model.output == "sigmoid":
        _with_none(case, fix)
    read = functools.partial(examine, channels=config.data.channels)
    reading = parallel(read, case.pairs, min(workers, len(case.pairs)))
    case.take(list(progress(reading, len(case.pairs), "read", "pairs")))
    _diagnose(case, config)
    _complete(case, command if fix else f"{command} --fix {shlex.quote(f'{case.root}_fixed')}")
    report = _report(case)
    write_json(out / "doctor.json", report)
    tell(report, console)
    write_text(out / "doctor.html", doctor_page(case, report))
    print(f"page: {out / 'doctor.html'}")
    if fix:
        done = write_fixed(case, fix)
        print(
            f"fixed copy: {done['linked']:,} pairs as they were, {done['written']:,} with a new "
            f"mask, {done['left_out']:,} left out; use it with --data.name folder --data.root "
            f"{shlex.quote(str(fix))}"
        )
    return report


def _demand_ids(case: Case) -> None:
    """Raise UserError (usage) for a split with folders of masks."""
    for split in case.roles if case.root else ():
        images, masks = (case.root / kind / split for kind in ("images", "labels"))
        names = {
            path.relative_to(images).with_suffix("").as_posix() for path in images.rglob("*.*")
        }
        if layered := layered_names(names, images, masks):
            raise UserError(
                f"{masks / min(layered)} is a folder with a mask for each class: labels that "
                "overlap, which the doctor does not examine. cfnseg train --model.output sigmoid "
                "names what is wrong in them",
                code=2,
            )


def _with_none(case: Case, fix: Path | None) -> None:
    """Id 0 without a class is none of the classes for sigmoid outputs, and no fault."""
    labels = case.labels
    if labels is not None and 0 not in {*labels.ignore, *(label.id for label in labels.labels)}:
        if fix:
            raise UserError(
                "--fix takes a class or void for id 0; give it a line in classes.txt", 2
            )
        none = Label(0, "(none)", (0, 0, 0))
        case.labels = LabelMap([none, *labels.labels], labels.ignore, labels.void)


def _diagnose(case: Case, config: Config) -> None:
    images.image_findings(case)
    images.size_findings(case)
    if case.labels is None and case.data.name == "folder" and case.pairs:
        guess_classes(case)
    if case.labels is not None:
        for i, form in zip(case.masks, assign(list(case.masks.values()), case.labels)):
            case.forms[i] = form
        case.rows = masks.count(case)
        masks.mask_findings(case)
        masks.count_findings(case)
        masks.place_findings(case, config)
    images.duplicate_findings(case)
    images.training_findings(case, config)


def _complete(case: Case, command: str) -> None:
    """Sort the findings, errors first; fill in the command and the pairs that show them."""
    of_file = {
        case.shown(path): i
        for i, pair in enumerate(case.pairs)
        for path in (pair.image, pair.mask)
        if path
    }
    for at, finding in enumerate(case.findings):
        pairs = finding.pairs
        if not pairs and not finding.twins:
            pairs = [of_file[name] for name in finding.files[:FEW] if name in of_file]
        fix = [line.replace("{fix}", command) for line in finding.fix]
        case.findings[at] = dataclasses.replace(finding, fix=fix, pairs=pairs)
    case.findings.sort(key=lambda finding: list(SEVERITIES).index(finding.severity))


def _report(case: Case) -> dict[str, Any]:
    splits = []
    for split, role in case.roles.items():
        own = case.members(split)
        rows = case.rows[own]
        ignored, unknown = rows[:, -2:].sum(0).tolist()
        classes = [
            {"pixels": pixels, "share": share, "images": images}
            for pixels, images, share in zip(*(values.tolist() for values in masks.totals(rows)))
        ]
        splits.append(
            {
                "name": split,
                "role": role,
                "pairs": sum(case.pairs[i].whole for i in own),
                "classes": classes,
                "ignored_share": ignored / max(1, int(rows.sum())),
                "unknown": unknown,
            }
        )
    labels = case.labels.labels if case.labels else ()
    counts = {s: sum(f.severity == s for f in case.findings) for s in SEVERITIES}
    return {
        "data": case.data.name,
        "root": str(case.root) if case.root else None,
        "counts": counts,
        "findings": [finding.to_dict() for finding in case.findings],
        "classes": [{"id": x.id, "name": x.name, "color": list(x.color)} for x in labels],
        "splits": splits,
        "place": case.place.to_dict() if case.place else None,
        "mirrored": [list(names) for names in case.mirrored],
    }

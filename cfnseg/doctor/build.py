"""`examine_data`: what tools/doctor.py does."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from cfnseg.config import Config
from cfnseg.doctor.classes import guessed, written
from cfnseg.doctor.counting import Counts, count, count_findings, counts_of
from cfnseg.doctor.duplicates import duplicate_findings
from cfnseg.doctor.examine import MaskFacts, Record, examine_all
from cfnseg.doctor.findings import ERROR, FEW, SEVERITIES, Finding, ordered
from cfnseg.doctor.forms import Form, assign
from cfnseg.doctor.images import color_finding, colors_of, image_findings, size_finding
from cfnseg.doctor.masks import mask_findings
from cfnseg.doctor.mend import write_mended
from cfnseg.doctor.page import doctor_page
from cfnseg.doctor.scan import Scan, scan
from cfnseg.doctor.sizes import size_findings
from cfnseg.doctor.text import tell
from cfnseg.errors import UserError
from cfnseg.storage import write_atomic


def examine_data(config: Config, out: Path | None = None, workers: int = 0, mend: Path | None = None,
                 command: str = "python tools/doctor.py CONFIG") -> dict[str, Any]:
    """Read every pair of a config's data set, print what is wrong with it, and write doctor.json and doctor.html.

    Args:
        config: data, model.encoder, name and runs are used.
        out: where to; None = <config.runs>/<config.name>/doctor.
        workers: processes that read (0 = this one).
        mend: write a mended copy of the data set into this new folder; see `cfnseg.doctor.mend.write_mended`.
        command: by which a user would call this again, for the proposals.

    Returns:
        What doctor.json holds: ``data``, ``root``, ``counts`` (findings by severity), ``findings`` (`Finding.to_dict`),
        ``classes`` (id, name, color) and ``splits`` (name, role, pairs, classes (pixels, share in 0..1, images),
        ignored_share, unknown pixels).

    Raises:
        UserError: a config of an image-level net; a folder that cannot be written. Whatever is wrong with the data is a finding.
    """
    if config.model.level != "pixel":
        raise UserError(f"{config.name} has model.level image; the doctor examines pairs of image and mask", code=2)
    out = out or Path(config.runs) / config.name / "doctor"
    console = Console(highlight=False)
    found = scan(config)
    reading = examine_all(found.pairs, min(workers, len(found.pairs)))
    records = list(track(reading, "reading", len(found.pairs), console=console, transient=True, disable=not console.is_terminal))
    findings, forms, rows = _diagnose(config, found, records)
    again = command if mend else f"{command} --mend {shlex.quote(f'{found.root}_mended')}"
    of_file = {found.shown(path): i for i, r in enumerate(records) for path in (r.pair.image, r.pair.mask) if path}
    findings = [dataclasses.replace(f, mend=[line.replace("{mend}", again) for line in f.mend],
                                    pairs=f.pairs or [of_file[name] for name in f.files[:FEW] if name in of_file and not f.twins])
                for f in ordered(findings)]
    report = _report(found, records, findings, rows)
    _write(out / "doctor.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    tell(report, console)
    _write(out / "doctor.html", doctor_page(report, found, records, forms, findings))
    print(f"page: {out / 'doctor.html'}")
    if mend:
        done = write_mended(found, records, forms, mend)
        print(f"mended copy: {done['linked']:,} pairs as they were, {done['written']:,} with a new mask, {done['left_out']:,} left out; "
              f"use it with --data.name folder --data.root {shlex.quote(str(mend))}")
    return report


def _diagnose(config: Config, found: Scan, records: list[Record]) -> tuple[list[Finding], list[Form | None], np.ndarray]:
    """All findings, the form of each record's mask, and the rows of `cfnseg.doctor.counting.count`."""
    findings = [*found.findings, *image_findings(found, records), *size_findings(found, records)]
    masks = [i for i, r in enumerate(records) if isinstance(r.mask, MaskFacts)]
    if found.labels is None and found.data.name == "folder" and found.pairs:
        findings.append(_guess(found, [records[i].mask for i in masks]))
    forms: list[Form | None] = [None] * len(records)
    rows = np.zeros((len(records), 2), np.int64)
    if found.labels is not None:
        for i, form in zip(masks, assign([records[i].mask for i in masks], found.labels)):
            forms[i] = form
        rows = count(found, records, forms)
        findings += [*mask_findings(found, records, forms), *count_findings(found, records, rows)]
    findings += duplicate_findings(found, records)
    training = [r for r in records if found.roles[r.pair.split] == "train"]
    if (colors := colors_of(training)) is not None:
        findings += [color_finding(config, colors), size_finding(config, training)]
    return findings, forms, rows


def _guess(found: Scan, masks: list[MaskFacts]) -> Finding:
    """The finding for a classes.txt that is not there, and classes by the ids that the masks have."""
    plain = [m for m in masks if not m.colored]
    values = sorted({int(v) for m in plain for v in m.values} - {255})
    if values and values[0] >= 0 and values[-1] < 255:
        found.labels = guessed(values, next((m.palette for m in plain if m.palette is not None), None))
    text = f"The masks have the ids {', '.join(map(str, values[:40]))}." if values else ""
    return Finding("classes-file", ERROR, "there is no usable classes.txt", text,
                   "classes.txt in the data set's folder, with a line `id name r g b` for each class", ["classes.txt"],
                   classes=written(found.labels, []) if found.labels else "")


def _report(found: Scan, records: list[Record], findings: list[Finding], rows: np.ndarray) -> dict[str, Any]:
    labels = found.labels.labels if found.labels else ()
    splits = []
    for split, role in found.roles.items():
        own = [i for i, r in enumerate(records) if r.pair.split == split]
        counts = counts_of(rows[own])
        splits.append({"name": split, "role": role, "pairs": sum(records[i].pair.whole for i in own), "classes": _classes(counts),
                       "ignored_share": counts.ignored / max(1, int(rows[own].sum())), "unknown": counts.unknown})
    return {"data": found.data.name, "root": str(found.root) if found.root else None,
            "counts": {s: sum(f.severity == s for f in findings) for s in SEVERITIES}, "findings": [f.to_dict() for f in findings],
            "classes": [{"id": x.id, "name": x.name, "color": list(x.color)} for x in labels], "splits": splits}


def _classes(counts: Counts) -> list[dict[str, Any]]:
    return [{"pixels": int(n), "share": float(s), "images": int(i)} for n, s, i in zip(counts.pixels, counts.share, counts.images)]


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda beside: beside.write_text(text, encoding="utf-8"))

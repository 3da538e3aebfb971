"""doctor.html: one file with everything in it, in the style of the reports."""

from __future__ import annotations

from typing import Any

from cfnseg.doctor.examine import Record
from cfnseg.doctor.findings import FEW, Finding
from cfnseg.doctor.forms import Form
from cfnseg.doctor.pictures import pictures
from cfnseg.doctor.scan import Scan
from cfnseg.doctor.text import verdict
from cfnseg.report.html import render


def doctor_page(report: dict[str, Any], found: Scan, records: list[Record], forms: list[Form | None], findings: list[Finding]) -> str:
    """The page for the content of doctor.json; ``findings`` are those of the report, with the pairs to be shown."""
    strips, looks = pictures(findings, records, forms, found.labels)
    most = [max((c["share"] for c in split["classes"]), default=0) or 1 for split in report["splits"]]
    return render(
        "doctor", r=report, verdict=verdict(report), found=list(zip(report["findings"], strips)), looks=looks, most=most, few=FEW)

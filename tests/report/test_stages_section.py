"""The section "Which stage decides": shares, sentence, page and Markdown."""

import json

import numpy as np
import pytest
from test_segmentation_report import LABELS, evaluation, pictures

from cfnseg.evaluation.decisions import Decisions
from cfnseg.report.segmentation_report import write_report
from cfnseg.report.stages_section import decided_sentence, decisions_of

NAMES = ["stride 2", "stride 32", "context", "bias"]
COUNTED = Decisions(
    NAMES,
    2,
    np.array([[10, 180, 10, 0], [61, 39, 0, 0], [0, 1, 0, 0], [0, 50, 25, 25], [0, 0, 0, 0]]),
    np.array([[20.0, 400, -20, 0], [150, 50, -40, 0], [0, 1, 0, 0], [0, 50, 25, 25], [0] * 4]),
)


def test_shares_and_mean_parts():
    found = decisions_of(COUNTED, LABELS)
    road, car, *_, nowhere = found["classes"]
    assert road == {
        "name": "road",
        "cells": 200,
        "decided": [0.05, 0.9, 0.05, 0.0],
        "margin": [0.1, 2.0, -0.1, 0.0],
    }
    assert car["decided"] == [0.61, 0.39, 0, 0]
    assert nowhere == {"name": "nowhere", "cells": 0, "decided": None, "margin": None}
    assert (found["images"], found["branches"]) == (2, NAMES)
    assert decisions_of(None, LABELS) is None


def test_the_sentence_names_what_is_furthest_above_the_rest():
    assert decided_sentence(decisions_of(COUNTED, LABELS)) == (
        "Clearest: car | van comes from stride 2, which decides 61.0 % of its area and 17.7 % "
        "of all."
    )
    for cells in (np.zeros((5, 4), int), np.tile([7, 0, 0, 0], (5, 1))):
        same = Decisions(NAMES, 1, cells, cells * 1.0)
        assert decided_sentence(decisions_of(same, LABELS)) == ""


@pytest.mark.parametrize("counted", [COUNTED, None])
def test_report(tmp_path, counted):
    found = pictures(5)
    report = write_report(tmp_path, evaluation(found), LABELS, None, decisions=counted)
    assert json.loads((tmp_path / "report.json").read_text())["decisions"] == report["decisions"]
    page, text = ((tmp_path / f"report.{kind}").read_text() for kind in ("html", "md"))
    if counted is None:
        assert "Which stage decides" not in page + text
        return
    assert "<h2>Which stage decides" in page and "Over 2 of 5 images, evenly spread." in page
    assert "Clearest: car | van comes from stride 2" in page
    assert page.count('style="--share:90.0%"') == 1 and ">+2.00</td>" in page
    assert "| car \\| van | 61.0 % | 39.0 % | 0.0 % | 0.0 % |" in text
    assert "&lt;script&gt;alert(1)" in page and "<script>alert(1)" not in page

"""The benchmark of samples and updates: both ways are run, and the ratio is theirs."""

import re

import numpy as np
import pytest

from cfnseg.config import Data
from cfnseg.lab.pipeline_speed import whole_then_crop
from tests.conftest import run_tool


@pytest.mark.slow
def test_tool():
    done = run_tool(
        "tools/bench_step.py", "--size", 96, 128, "--crop", 48, 64, "--samples", 3, "--updates", 1
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [row.split(":")[0] for row in lines] == [
        "a sample",
        "adamw, 164 tensors",
        "sgd, 164 tensors",
    ]
    default, fused, ratio = map(
        float,
        re.search(r"default ([\d.]+) ms .*fused ([\d.]+) ms .*ratio ([\d.]+)", lines[1]).groups(),
    )
    assert fused / default == pytest.approx(ratio, rel=0.3, abs=0.05)


def test_the_usual_way_gives_a_sample_of_the_same_form():
    image, mask = np.full((60, 90, 3), 9, np.uint8), np.full((60, 90), 3, np.uint8)
    pixels, truth = whole_then_crop(Data(crop=(48, 64), scale=(0.5, 0.5), photometric=0.0))(
        image, mask, 0
    )
    assert pixels.shape == (3, 48, 64)
    assert truth.shape == (48, 64)
    assert sorted(np.unique(truth)) == [3, 255]

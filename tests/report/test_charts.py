"""The charts of boundaries and calibration, and counts short enough for a cell."""

import numpy as np
import pytest

from cfnseg.metrics.calibration import calibration_counts, expected_calibration_error
from cfnseg.report.charts import (
    BOTTOM,
    HEIGHT,
    SHARES,
    SQUARE,
    TOP,
    compact,
    reliability,
    trimap_chart,
)


def calibration(confidence: np.ndarray, right: np.ndarray) -> dict:
    """As report.json has it."""
    counts = calibration_counts(confidence.astype(np.float32), right, np.ones(right.shape, bool))
    return {
        "ece": expected_calibration_error(counts),
        "bins": [
            {
                "low": i / 15,
                "high": (i + 1) / 15,
                "pixels": int(n),
                "confidence": s / n if n else None,
                "accuracy": r / n if n else None,
            }
            for i, (n, s, r) in enumerate(counts)
        ],
    }


def test_reliability_diagram():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.35, 1, (100, 100))
    drawn = reliability(calibration(confidence, rng.random((100, 100)) < confidence - 0.2))
    assert (
        len(drawn.bars) == 10
        and drawn.ece == pytest.approx(0.2, abs=0.02)
        and drawn.verdict.endswith("too sure.")
    )
    for bar in (
        drawn.bars
    ):  # y grows downwards: the accuracy's end lies below the confidence's mark, by the gap
        assert bar.accuracy - bar.confidence == pytest.approx(0.2 * SQUARE, abs=0.1 * SQUARE)
        assert bar.x <= SQUARE - bar.confidence <= bar.x + bar.width + 0.01
    assert max(bar.share for bar in drawn.bars) == SHARES
    assert reliability(
        calibration(confidence, rng.random((100, 100)) < confidence)
    ).verdict.endswith("about as sure as it is right.")
    assert reliability(calibration(confidence, np.ones((100, 100), bool))).verdict.endswith(
        "100.0 % right: not sure enough."
    )
    assert (
        reliability(None) is None
        and reliability(calibration(np.zeros((0, 4)), np.zeros((0, 4), bool))) is None
    )


def test_trimap_chart():
    chart = trimap_chart(
        [{"width": 1, "miou": 0.25}, {"width": 2, "miou": None}, {"width": 4, "miou": 0.5}], 0.75
    )
    whole, band = chart.lines
    assert [text for _, text in chart.across] == [
        "1 px",
        "4 px",
    ] and band.text == "in the band, 25.0 at 1 px"
    assert [HEIGHT - BOTTOM - y for _, y, _ in band.marks] == pytest.approx(
        [s * (HEIGHT - TOP - BOTTOM) for s in (0.25, 0.5)], abs=0.1
    )
    assert {point.split(",")[1] for point in whole.points.split()} == {
        f"{HEIGHT - BOTTOM - 0.75 * (HEIGHT - TOP - BOTTOM):.1f}"
    }
    assert (
        trimap_chart(None, 0.5) is None and trimap_chart([{"width": 1, "miou": None}], None) is None
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (987, "987"),
        (999, "999"),
        (1000, "1.0k"),
        (1249, "1.2k"),
        (9949, "9.9k"),
        (9951, "10k"),
        (999_400, "999k"),
        (999_600, "1.0M"),
        (5_053_176, "5.1M"),
        (45_000_000, "45M"),
        (3_210_000_000, "3.2G"),
    ],
)
def test_compact_counts(count, text):
    assert compact(count) == text

"""What a person reads: percent, the columns that are shown, the sentence that opens a report."""

import pytest

from cfnseg.report import classification_page, segmentation_page
from cfnseg.report.charts import interval_axis
from cfnseg.report.text import Column, percent, score, score_column, share, signed, table, varying


def test_numbers():
    assert (percent(0.7659), percent(None), percent(1.0)) == ("76.6", "-", "100.0")
    assert (share(0.4126), share(0.0), share(0.0004)) == ("41.3 %", "0.0 %", "< 0.1 %")
    assert (score(0.5, "Loss"), score(0.5, "mIoU")) == ("0.5000", "50.0")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0129, "+1.3"),
        (-0.2, "-20.0"),
        (0.0, "0.0"),
        (None, "-"),
        (-0.0003, "-0.03"),
        (1e-9, "0.0"),
    ],
)
def test_differences(value, text):
    assert signed(value) == text


def test_a_difference_of_losses_is_no_percentage():
    assert signed(0.0129, "loss") == "+0.0129"


def test_columns_of_one_value_are_left_out():
    iou = score_column("IoU", [0.5, 0.5], needed=True)
    same, empty = Column("Images", [10, 10], ["10", "10"]), score_column("AP", [None, None])
    other = score_column("Recall", [0.5, 0.7])
    assert varying([iou, same, empty, other]) == (
        [iou, other],
        "The same for all classes: Images 10.",
    )
    assert varying([iou, other]) == ([iou, other], "")
    single = Column("Images", [10], ["10"])
    assert varying([single]) == ([single], "")


def test_table():
    assert table(["a", "b"], [["x | y", "1"]]) == ["| a | b |", "|:--|--:|", "| x \\| y | 1 |"]


def segmentation(confusion) -> dict:
    """The rows of report.json that the opening sentence reads, for classes a, b, c."""
    truth, predicted = [sum(row) for row in confusion], [sum(row) for row in zip(*confusion)]
    classes = []
    for c, name in enumerate("abc"[: len(confusion)]):
        hit, union = confusion[c][c], truth[c] + predicted[c] - confusion[c][c]
        classes.append(
            {
                "name": name,
                "iou": hit / union if union else None,
                "truth_pixels": truth[c],
                "predicted_pixels": predicted[c],
            }
        )
    return {"classes": classes, "confusion": confusion}


@pytest.mark.parametrize(
    ("confusion", "sentence"),
    [
        (
            [[90, 0, 0], [41, 50, 9], [0, 0, 50]],
            "Weakest: b, IoU 50.0; 41.0 % of its pixels are taken for a.",
        ),
        (
            [[60, 40, 0], [0, 10, 0], [0, 0, 9]],
            "Weakest: b, IoU 20.0; 80.0 % of the pixels taken for it are a.",
        ),
        (
            [[60, 0, 5], [0, 10, 0], [0, 0, 0]],
            "Weakest: c, IoU 0.0; it is in no truth, but predicted for 5 px.",
        ),
        ([[5, 0], [0, 5]], "Weakest: a, IoU 100.0."),
        ([[7]], "Weakest: a, IoU 100.0."),
        ([[0, 0], [0, 0]], "No pixel was counted."),
    ],
)
def test_a_segmentation_opens_with_what_is_weak(confusion, sentence):
    assert segmentation_page.weakest(segmentation(confusion)) == sentence


def test_a_classification_opens_with_what_is_weak():
    classes = [
        {"name": "cat", "error": 0.4, "images": 10},
        {"name": "dog", "error": 0.1, "images": 10},
        {"name": "frog", "error": None, "images": 0},
    ]
    summary = {"classes": classes, "confusion": [[6, 3, 1], [1, 9, 0], [0, 0, 0]]}
    expected = "Weakest: cat, error 40.0; 30.0 % of its images are taken for dog."
    assert classification_page.weakest(summary) == expected
    classes[0]["error"] = classes[1]["error"] = 0.0
    assert classification_page.weakest(summary) == "Weakest: cat, error 0.0."
    assert (
        classification_page.weakest({"classes": classes[2:], "confusion": [[0]]})
        == "No image was counted."
    )


@pytest.mark.parametrize(
    ("value", "ends", "difference"),
    [
        (0.766, (0.76, 0.772), False),
        (0.0, (0.0, 0.0), False),
        (1.0, (0.98, 1.0), False),
        (0.5, (0.1, 0.9), False),
        (0.019, (0.016, 0.022), True),
        (-0.3, (-0.35, -0.2), True),
        (0.0, (0.0, 0.0), True),
    ],
)
def test_the_interval_is_zoomed(value, ends, difference):
    axis = interval_axis(value, ends, difference)
    places = [place for place, _ in axis["ticks"]]
    assert places[0] == 0 and places[-1] == 1 and 3 <= len(places) <= 9 and places == sorted(places)
    assert 0 <= axis["low"] <= axis["score"] <= axis["high"] <= 1
    assert axis["high"] - axis["low"] > 0.1 or ends[0] == ends[1] or difference
    assert (axis["zero"] is not None) == difference and (not difference or 0 <= axis["zero"] <= 1)
    assert len({text for _, text in axis["ticks"]}) == len(places)


def test_nothing_counted_has_no_axis():
    assert interval_axis(None, [None, None]) is None

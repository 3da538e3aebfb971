"""report.html and report.md of a segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnseg.data.dataset import is_trained_on
from cfnseg.data.labels import LabelMap
from cfnseg.report.charts import heatmap, reliability, trimap_chart
from cfnseg.report.gallery import Picture, gallery
from cfnseg.report.html import report_page
from cfnseg.report.stages_section import RULE as DECIDED
from cfnseg.report.stages_section import decided_sentence, decision_lines, extent
from cfnseg.report.text import Column, Report, ends, percent, score, score_column, share, table

RULE = (
    "All scores are in percent. One int64 confusion matrix over the whole split, at the truth's "
    "native size, ignored pixels left out; IoU = TP / (TP + FP + FN). mIoU is the mean over the "
    "classes with a non-empty union. Images of one video are not independent; the interval is "
    "then too narrow."
)
SEEN = "The weights were trained on these images: the score says nothing of others."


def weakest(summary: dict[str, Any]) -> str:
    """The sentence that opens a report: the class of the lowest IoU and its main mistake.

    Where false pixels outweigh missed ones, it names the class that they are taken from.
    """
    classes, matrix = summary["classes"], summary["confusion"]
    known = [c for c, row in enumerate(classes) if row["iou"] is not None]
    if not known:
        return "No pixel was counted."
    worst = min(known, key=lambda c: classes[c]["iou"])
    truth, predicted = (classes[worst][key] for key in ("truth_pixels", "predicted_pixels"))
    start = f"Weakest: {classes[worst]['name']}, IoU {percent(classes[worst]['iou'])}"
    if not truth:
        return f"{start}; it is in no truth, but predicted for {predicted:,} px."
    missed, false = matrix[worst], [row[worst] for row in matrix]
    counts, total = (false, predicted) if predicted > truth else (missed, truth)
    other = max(
        (c for c in range(len(classes)) if c != worst), key=lambda c: counts[c], default=worst
    )
    if other == worst or not counts[other]:
        return f"{start}."
    part, name = share(counts[other] / total), classes[other]["name"]
    if counts is false:
        return f"{start}; {part} of the pixels taken for it are {name}."
    return f"{start}; {part} of its pixels are taken for {name}."


def describe(summary: dict[str, Any]) -> Report:
    """What both files show; see `cfnseg.report.segmentation_report.summary_of`."""
    classes, names = summary["classes"], [row["name"] for row in summary["classes"]]

    def scores(title: str, key: str, **more: bool) -> Column:
        return score_column(title, [row[key] for row in classes], **more)

    def counts(title: str, key: str) -> Column:
        values = [row[key] for row in classes]
        return Column(title, values, [_pixels(value) for value in values], needed=True)

    ids = [row["id"] for row in classes]
    intervals = ["-" if row["iou"] is None else ends(row["iou_ci95"]) for row in classes]
    sizes = [
        score_column(size["name"], [row["sizes"][size["name"]] for row in classes], on_page=False)
        for size in summary["sizes"] or ()
    ]
    columns = [
        Column("Id", ids, [str(value) for value in ids], on_page=False, needed=True),
        scores("IoU", "iou", needed=True),
        Column("95 %", ids, intervals, on_page=False),
        scores("Recall", "recall"),
        scores("Precision", "precision"),
        scores("Boundary IoU", "boundary_iou"),
        *sizes,
        scores("Image AP", "image_ap"),
        counts("Truth", "truth_pixels"),
        counts("Predicted", "predicted_pixels"),
    ]
    lead = weakest(summary)
    return Report(
        "Segmentation",
        f"{SEEN} {lead}" if is_trained_on(summary["facts"].get("split", "")) else lead,
        "mIoU",
        f"over {summary['miou_divisor']} of {len(classes)} classes",
        summary["miou"],
        summary["miou_ci95"],
        summary["num_images"],
        _cards(summary),
        " ".join([RULE, *_unpredicted(summary)]),
        "A heading sorts by its column. The line on a bar is the 95 % interval over images.",
        names,
        columns,
        heatmap(summary["confusion"], names).mistakes,
        _pixels,
    )


def segmentation_page(
    summary: dict[str, Any],
    labels: LabelMap,
    picture: Callable[[int], Picture] | None,
    run_folder: str | Path | None,
) -> str:
    """report.html.

    Args:
        summary: see `cfnseg.report.segmentation_report.summary_of`.
        labels: the classes, for their colours.
        picture: index -> RGB, truth and prediction of an image; None = no pictures.
        run_folder: see `cfnseg.report.html.report_page`.
    """
    page, sizes = describe(summary), summary["sizes"] or []
    decisions = summary["decisions"]
    total = max(1, sum(row["truth_pixels"] for row in sizes))
    return report_page(
        "segmentation",
        page,
        summary["facts"],
        run_folder,
        bars=[row["iou"] or 0 for row in summary["classes"]],
        whiskers=[row["iou"] is not None and row["iou_ci95"] for row in summary["classes"]],
        colors=[label.color for label in labels.labels],
        heatmap=heatmap(summary["confusion"], page.names),
        gallery=gallery(summary["images"] if picture else [], picture, labels),
        trimap=trimap_chart(summary["trimap"], summary["miou"]),
        reliability=reliability(summary["calibration"]),
        decisions=decisions,
        decided=decided_sentence(decisions) if decisions else "",
        decided_rule=f"{extent(decisions, page.images)} {DECIDED}" if decisions else "",
        conventions=summary.get("conventions"),
        sizes=[
            (row["name"], _size_limits(row), row["miou"], row["truth_pixels"] / total)
            for row in sizes
        ],
        class_sizes=[
            column for column in page.columns if column.title in {r["name"] for r in sizes}
        ],
    )


def markdown_of(summary: dict[str, Any]) -> str:
    """The text of report.md for the content of report.json."""
    lines = _unpredicted(summary)
    if summary["trimap"] is not None:
        bands = (f"{row['width']} px {percent(row['miou'])}" for row in summary["trimap"])
        lines += [f"mIoU within a distance of a true boundary: {', '.join(bands)}", ""]
    if summary["sizes"] is not None:
        sizes = (
            f"{row['name']} ({_size_limits(row)}) {percent(row['miou'])}"
            for row in summary["sizes"]
        )
        lines += [f"mIoU by size of segment: {', '.join(sizes)}", ""]
    if summary["calibration"] is not None:
        error, bins = percent(summary["calibration"]["ece"]), len(summary["calibration"]["bins"])
        lines += [f"Expected calibration error {error}, over pixels in {bins} bins", ""]
    if summary["decisions"] is not None:
        lines += decision_lines(summary["decisions"], summary["num_images"])
    if "conventions" in summary:
        rows = [
            [row["library"], percent(row["miou"]), row["rule"], row["why"]]
            for row in summary["conventions"]
        ]
        lines += [
            "What others would call mIoU, from the same counts:",
            "",
            *table(["library", "mIoU", "rule", "why it differs"], rows),
        ]
    return describe(summary).markdown(lines, summary["facts"])


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each score next to mIoU; uncounted scores have none."""
    pixels = sum(row["truth_pixels"] for row in summary["classes"])
    boundary = ends(summary["boundary_miou_ci95"])
    scores = [
        ("pixel accuracy", "pixel_accuracy", "of all counted pixels"),
        ("mean accuracy", "mean_accuracy", "mean recall of the classes"),
        ("boundary mIoU", "boundary_miou", f"{boundary}, edges 2\u00a0% of the diagonal wide"),
        ("image-head mAP", "image_map", "classes in an image"),
        ("loss", "loss", "mean cross-entropy"),
    ]
    cards = [
        (name, score(summary[key], name), note)
        for name, key, note in scores
        if summary[key] is not None
    ]
    return [*cards, ("images", f"{summary['num_images']:,}", f"{pixels:,} counted pixels")]


def _unpredicted(summary: dict[str, Any]) -> list[str]:
    count = summary["unpredicted_pixels"]
    return [f"{count:,} px are predicted as an ignored id; they count as wrong."] if count else []


def _size_limits(row: dict[str, Any]) -> str:
    """The pixels of a segment of one of report.json's sizes."""
    low, high = row["from_pixels"], row["to_pixels"]
    if high is None:
        return f"{low:,} px and more"
    return f"under {high:,} px" if low == 1 else f"{low:,} to {high - 1:,} px"


def _pixels(count: int) -> str:
    return f"{count:,} px"

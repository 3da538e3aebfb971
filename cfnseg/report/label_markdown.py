"""report.md for images with one label each."""

from __future__ import annotations

from typing import Any

from cfnseg.report.markdown import cell, fact_lines, interval, shown

RULE = ("An image is right if its class has the highest probability of all, and right in the top 5 if its class is among the first "
        "five; equal probabilities count against it. The error of a class is that of its images, and the mean class error is over "
        "the classes that have images. Average precision ranks all images by the probability of the class (VOC 2010). The interval "
        "is about other images of this kind, not about other training runs.")


def label_markdown(summary: dict[str, Any]) -> str:
    """The text of report.md for the content of report.json; see `cfnseg.report.labels.label_summary`."""
    images = summary["num_images"]
    within = f" ({interval(summary['top1_error_ci95'], images)})" if images else ""
    scores = [("top-5 error", "top5_error"), ("mean class error", "mean_class_error"), ("loss", "loss")]
    lines = ["# Classification report", "", f"**top-1 error {shown(summary['top1_error'])}{within}**", "",
             ", ".join(f"{name} {shown(summary[key])}" for name, key in scores), "",
             "| class | images | error | precision | average precision |", "|:--|--:|--:|--:|--:|"]
    for row in summary["classes"]:
        numbers = [shown(row[key]) for key in ("error", "precision", "average_precision")]
        lines.append(f"| {' | '.join([cell(row['name']), str(row['images']), *numbers])} |")
    return "\n".join([*lines, "", f"How it is counted: {RULE}", "", *fact_lines(summary["facts"])]).rstrip() + "\n"

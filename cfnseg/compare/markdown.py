"""compare.md, and the words that it shares with the page."""

from __future__ import annotations

from typing import Any

from cfnseg.compare.numbers import changed
from cfnseg.report.markdown import cell, shown

METRICS = {"miou": "mIoU", "top1_error": "top-1 error"}
RULE = ("Both are scored on the same images, and resampled together 10,000 times (paired bootstrap over images; Efron and Tibshirani 1993, "
        "ch. 16), so what makes an image hard for both cancels. The interval is about other images of this kind, not about other training "
        "runs: another seed can move either score. Images of one video are not independent; the interval is then too narrow.")
EXACT = " The p-value is McNemar's exact test on the images that one side alone has right."
MOST = 8  # images named


def signed(value: float | None, digits: int = 4) -> str:
    """A difference as text; one that rounds to 0 has no sign."""
    if value is None:
        return "-"
    return f"{0:.{digits}f}" if abs(value) < 0.5 * 10**-digits else f"{value:+.{digits}f}"


def within(row: dict[str, Any]) -> str:
    """The interval of a difference."""
    low, high = row["ci95"]
    return "-" if low is None else f"{signed(low)} to {signed(high)}"


def p_text(p: float) -> str:
    """A p-value in words that a reader expects."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def verdict(numbers: dict[str, Any]) -> str:
    """What the difference and its interval say, in plain words."""
    name, (low, high) = METRICS[numbers["metric"]], numbers["ci95"]
    if not changed(numbers):
        same = numbers["difference"] == low == high == 0
        return (f"A and B have the same {name}, whichever images are drawn." if same else
                f"The interval includes 0: these {numbers['num_images']:,} images do not tell A and B apart.")
    better = "B" if (numbers["difference"] > 0) == (numbers["metric"] == "miou") else "A"
    return f"{better} is better: the interval excludes 0, so the difference is more than the choice of these images would make."


def remarks(numbers: dict[str, Any]) -> list[str]:
    """What a reader of the score has to know besides."""
    found, left = [], numbers["left_out"]
    if left["a"] or left["b"]:
        found.append(f"Compared on the {numbers['num_images']:,} images that both have; left out: {left['a']:,} that only A has, "
                     f"{left['b']:,} that only B has.")
    divisors = [numbers[side]["divisor"] for side in "ab"]
    if divisors[0] != divisors[1]:
        found.append(f"The mIoU of A is over {divisors[0]} classes, that of B over {divisors[1]}: a class that is in no truth counts as 0 "
                     "where it is predicted, and not at all elsewhere.")
    return found


def caution(numbers: dict[str, Any]) -> str:
    """About many classes at once."""
    count = sum(row["ci95"][0] is not None for row in numbers["classes"])
    return (f"{count} classes are compared at once, each with a 95 % interval: were there no difference at all, about {0.05 * count:.1f} "
            f"of them would exclude 0 by chance. A claim about a class that was picked for its change needs 5 % / {count} in place of 5 % "
            "(Bonferroni; Holm's steps are a little milder), or other images.") if count > 1 else ""


def unknown_settings(numbers: dict[str, Any]) -> str:
    """Why there are no settings to compare, if so."""
    sides = " and ".join(numbers["without_settings"]).upper().replace("AND", "and")
    return f"No run folder with a config.json was found for {sides}, so the settings cannot be compared." if sides else ""


def markdown_of(numbers: dict[str, Any]) -> str:
    """The text of compare.md for the content of compare.json; see `cfnseg.compare.numbers.compare_sides`."""
    a, b, name = numbers["a"], numbers["b"], METRICS[numbers["metric"]]
    lines = [f"# {b['name']} (B) against {a['name']} (A)", ""]
    for letter, side in (("A", a), ("B", b)):
        over = "" if side["divisor"] is None else f" over {side['divisor']} of {len(numbers['classes'])} classes"
        ends = f"95 % interval {shown(side['ci95'][0])} to {shown(side['ci95'][1])}"
        lines.append(f"- {letter}: {name} {shown(side['score'])} ({ends}){over}, `{side['report']}`")
    lines += ["", f"**{name}, B less A: {signed(numbers['difference'])} (95 % interval {within(numbers)}, {p_text(numbers['p_value'])}, "
              f"{numbers['num_images']:,} images)**", "", verdict(numbers), *remarks(numbers), ""]
    if numbers["others"]:
        lines += ["| score | A | B | B less A |", "|:--|--:|--:|--:|"]
        lines += [f"| {row['name']} | {shown(row['a'])} | {shown(row['b'])} | {signed(row['b'] - row['a'])} |" for row in numbers["others"]]
        lines += [""]
    lines += ["## Classes", "", "| class | A | B | B less A | 95 % interval | |", "|:--|--:|--:|--:|--:|:--|"]
    for row in numbers["classes"]:
        values = [cell(row["name"]), shown(row["a"]), shown(row["b"]), signed(row["difference"]), within(row), "excludes 0" * changed(row)]
        lines.append(f"| {' | '.join(values)} |")
    lines += ["", caution(numbers), "", "## Settings that differ", ""]
    lines += [unknown_settings(numbers)] if numbers["without_settings"] else _changes(numbers["settings"] + numbers["environment"])
    lines += ["", "What was scored:", "", *_changes(numbers["facts"]), "", "## Images that changed most", ""]
    return "\n".join([*lines, *_images(numbers), "", RULE + EXACT * (numbers["metric"] == "top1_error")]).rstrip() + "\n"


def _changes(rows: list[dict[str, str]]) -> list[str]:
    return [f"- {row['key']}: `{cell(row['a'])}` -> `{cell(row['b'])}`" for row in rows] or ["- nothing differs"]


def _images(numbers: dict[str, Any]) -> list[str]:
    rows = numbers["images"]
    if numbers["metric"] == "miou":
        rows = [row for row in rows if row["difference"]][:MOST]
        table = ["| image | A | B | B less A |", "|:--|--:|--:|--:|"]
        table += [f"| {cell(row['name'])} | {shown(row['a'])} | {shown(row['b'])} | {signed(row['difference'])} |" for row in rows]
        return table if rows else ["No image has another mIoU."]
    mended = sum(row["b_right"] for row in rows)
    lines = [f"B has {mended:,} images right that A has wrong, and {len(rows) - mended:,} wrong that A has right."]
    if rows:
        lines += ["", "| image | truth | A | B |", "|:--|:--|:--|:--|"]
    return lines + [f"| {' | '.join(cell(row[key]) for key in ('name', 'truth', 'a', 'b'))} |" for row in rows[:MOST]]

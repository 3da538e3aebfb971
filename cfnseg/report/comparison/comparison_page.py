"""compare.html and compare.md."""

from __future__ import annotations

from typing import Any

from cfnseg.drawing import thumbnail
from cfnseg.report.charts import interval_axis
from cfnseg.report.comparison.changed_images import find_images, find_pictures, strips
from cfnseg.report.comparison.differences import changed
from cfnseg.report.comparison.sides import Side
from cfnseg.report.gallery import Tile
from cfnseg.report.html import render
from cfnseg.report.text import document, ends, percent, score, signed, table

METRICS = {"miou": "mIoU", "top1_error": "top-1 error"}
RULE = (
    "Scores are in percent, differences in points. Both are scored on the same images, and "
    "resampled together 10,000 times (paired bootstrap over images; Efron and Tibshirani 1993, "
    "ch. 16), so what makes an image hard for both cancels. The interval is about other images of "
    "this kind, not about other training runs: another seed can move either score. Images of one "
    "video are not independent; the interval is then too narrow."
)
EXACT = " The p-value is McNemar's exact test on the images that only one side has right."
MOST = 8  # images named
EACH, TILES = 4, 12  # images shown that changed most in either direction: masks, and classes


def comparison_page(numbers: dict[str, Any], a: Side, b: Side) -> str:
    """The page for the content of compare.json; a picture that cannot be made has the reason."""
    by_miou = numbers["metric"] == "miou"
    reach = (
        max((abs(x) for row in numbers["classes"] for x in row["ci95"] if x is not None), default=0)
        or 1
    )
    rows = [(row, _spread(row, reach, by_miou)) for row in numbers["classes"]]
    return render(
        "compare",
        n=numbers,
        metric=METRICS[numbers["metric"]],
        rows=rows,
        state=_spread(numbers, 1, by_miou)["state"],
        verdict=verdict(numbers),
        remarks=remarks(numbers),
        caution=caution(numbers),
        p=p_text(numbers["p_value"]),
        unknown_settings=unknown_settings(numbers),
        rule=RULE + EXACT * (not by_miou),
        axis=interval_axis(numbers["difference"], numbers["ci95"], difference=True),
        named=numbers["images"][:MOST],
        **(_strips if by_miou else _tiles)(numbers["images"], a, b),
    )


def _spread(row: dict[str, Any], reach: float, higher_is_better: bool) -> dict[str, Any]:
    """A difference on an axis from -reach to reach.

    Returns:
        state: none, better or worse. at, low, high: places in percent of the width, or None.
    """
    better = (row["difference"] or 0) > 0
    state = "none" if not changed(row) else "better" if better == higher_is_better else "worse"
    places = [
        None if value is None else f"{50 + 49 * value / reach:.2f}%"
        for value in (row["difference"], *row["ci95"])
    ]
    return {"state": state, **dict(zip(("at", "low", "high"), places))}


def _strips(images: list[dict[str, Any]], a: Side, b: Side) -> dict[str, Any]:
    """The images of a segmentation that gained most ("up") and lost most ("down")."""
    parts = {
        "up": [row for row in images if row["difference"] > 0][:EACH],
        "down": [row for row in images if row["difference"] < 0][:EACH],
    }
    rows = {row["name"]: row for which in parts.values() for row in which}
    shown, labels, missing = find_pictures(a, b, list(rows))
    drawn = strips(shown, rows, labels) if labels else []
    sides = {which: [s for s in drawn if s["row"] in part] for which, part in parts.items()}
    return {"strips": sides, "missing": missing, "legend": labels.labels if labels else []}


def _tiles(images: list[dict[str, Any]], a: Side, b: Side) -> dict[str, Any]:
    """The images of a classification that only B ("up") and only A ("down") has right."""
    parts = {
        which: [row for row in images if row["b_right"] == right][:TILES]
        for which, right in (("up", True), ("down", False))
    }
    found, missing = find_images(a, b, [row["name"] for rows in parts.values() for row in rows])
    drawn = {
        which: [Tile(row, *thumbnail(found[row["name"]], 320)) for row in rows if found]
        for which, rows in parts.items()
    }
    return {"tiles": drawn, "missing": missing}


def p_text(p: float) -> str:
    """A p-value with three decimals; small ones as "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def verdict(numbers: dict[str, Any]) -> str:
    """What the difference and its interval say."""
    name, (low, high) = METRICS[numbers["metric"]], numbers["ci95"]
    if numbers["difference"] == low == high == 0:
        return f"A and B have the same {name}, whichever images are drawn."
    if not changed(numbers):
        return (
            f"No clear difference: the interval includes 0, so these {numbers['num_images']:,} "
            "images cannot separate A and B."
        )
    better = "B" if (numbers["difference"] > 0) == (numbers["metric"] == "miou") else "A"
    points = signed(abs(numbers["difference"])).lstrip("+")
    return f"{better} is better by {points} points of {name}; the 95 % interval excludes 0."


def remarks(numbers: dict[str, Any]) -> list[str]:
    """What a reader of the score has to know in addition."""
    found, left = [], numbers["left_out"]
    if left["a"] or left["b"]:
        found.append(
            f"Compared on the {numbers['num_images']:,} images that both have; left out: "
            f"{left['a']:,} that only A has, {left['b']:,} that only B has."
        )
    a, b = (numbers[side]["divisor"] for side in "ab")
    if a != b:
        found.append(
            f"The mIoU of A is over {a} classes, the mIoU of B over {b}: a class without "
            "truth counts as 0 where it is predicted, and not at all elsewhere."
        )
    return found


def caution(numbers: dict[str, Any]) -> str:
    """A warning about many classes at once; "" for one."""
    count = sum(row["ci95"][0] is not None for row in numbers["classes"])
    if count <= 1:
        return ""
    return (
        f"{count} classes are compared at once, each with a 95 % interval. Without any "
        f"difference, about {0.05 * count:.1f} intervals would exclude 0 by chance. A claim "
        f"about a class that was picked for its change needs 5 % / {count} in place of 5 % "
        "(Bonferroni; Holm's steps are a little milder), or other images."
    )


def unknown_settings(numbers: dict[str, Any]) -> str:
    """Why there are no settings to compare; "" if there are."""
    sides = " and ".join(letter.upper() for letter in numbers["without_settings"])
    return (
        (
            f"No run folder with a config.json was found for {sides}, so the settings cannot be "
            "compared."
        )
        if sides
        else ""
    )


def markdown_of(numbers: dict[str, Any]) -> str:
    """The text of compare.md for the content of compare.json."""
    a, b, name = numbers["a"], numbers["b"], METRICS[numbers["metric"]]
    sides = []
    for letter, side in (("A", a), ("B", b)):
        classes = len(numbers["classes"])
        over = (
            f" over {side['divisor']} of {classes} classes" if side["divisor"] is not None else ""
        )
        sides.append(
            f"- {letter}: {name} {percent(side['score'])} (95 % interval "
            f"{ends(side['ci95'])}){over}, `{side['report']}`"
        )
    about = (
        f"95 % interval {ends(numbers['ci95'], sign=True)}, {p_text(numbers['p_value'])}, "
        f"{numbers['num_images']:,} images"
    )
    others = [
        [
            row["name"],
            score(row["a"], row["name"]),
            score(row["b"], row["name"]),
            signed(row["b"] - row["a"], row["name"]),
        ]
        for row in numbers["others"]
    ]
    classes = [
        [
            row["name"],
            percent(row["a"]),
            percent(row["b"]),
            signed(row["difference"]),
            ends(row["ci95"], sign=True),
            "excludes 0" * changed(row),
        ]
        for row in numbers["classes"]
    ]
    settings = (
        [unknown_settings(numbers)]
        if numbers["without_settings"]
        else _changes(numbers["settings"] + numbers["environment"])
    )
    return document(
        [
            f"# {b['name']} (B) against {a['name']} (A)",
            "",
            verdict(numbers),
            "",
            f"**{name}, B - A: {signed(numbers['difference'])} ({about})**",
            "",
            *sides,
            "",
            *remarks(numbers),
            "",
            *(table(["score", "A", "B", "B - A"], others) if others else []),
            "",
            "## Classes",
            "",
            *table(["class", "A", "B", "B - A", "95 % interval", ""], classes),
            "",
            caution(numbers),
            "",
            "## Settings that differ",
            "",
            *settings,
            "",
            "What was scored:",
            "",
            *_changes(numbers["facts"]),
            "",
            "## Images that changed most",
            "",
            *_images(numbers),
            "",
            RULE + EXACT * (numbers["metric"] == "top1_error"),
        ]
    )


def _changes(rows: list[dict[str, str]]) -> list[str]:
    lines = [f"- {row['key']}: `{row['a']}` -> `{row['b']}`" for row in rows]
    return [" ".join(line.split()) for line in lines] or ["- nothing differs"]


def _images(numbers: dict[str, Any]) -> list[str]:
    rows = numbers["images"]
    if numbers["metric"] == "miou":
        moved = [
            [row["name"], percent(row["a"]), percent(row["b"]), signed(row["difference"])]
            for row in rows
            if row["difference"]
        ][:MOST]
        titles = ["image", "A", "B", "B - A"]
        return table(titles, moved) if moved else ["No image has another mIoU."]
    fixed = sum(row["b_right"] for row in rows)
    lines = [
        f"B has {fixed:,} images right that A has wrong, and {len(rows) - fixed:,} wrong that "
        "A has right."
    ]
    named = [[row[key] for key in ("name", "truth", "a", "b")] for row in rows[:MOST]]
    return [*lines, "", *table(["image", "truth", "A", "B"], named, left=4)] if rows else lines

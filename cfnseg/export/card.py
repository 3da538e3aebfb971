"""A model card: what a page of the hub says of weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cfnseg import __version__
from cfnseg.data.labels import LabelMap
from cfnseg.export.origin import NONE, Origin, Score
from cfnseg.models.segmenter import bands_of
from cfnseg.models.weights import Weights
from cfnseg.report.text import document, ends, percent, plural, table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASKS = {"pixel": "image-segmentation", "image": "image-classification"}  # the hub's names
WIDTH = 76  # columns of a command
GEO = '"cfnseg[geo]"'  # reads TIFFs of bands
PAPER = "https://arxiv.org/abs/1611.05503"


def model_card(repo: str, weights: Weights, origin: Origin, license: str = "") -> str:
    """The README.md of a hub's repository: YAML that the hub reads, then Markdown.

    Args:
        repo: "user/name".
        weights: what is described.
        origin: its scores and its training.
        license: the hub's identifier; "" = unknown.
    """
    from huggingface_hub import ModelCardData

    settings, name = weights.settings, repo.partition("/")[2]
    data = ModelCardData(
        license=license or "unknown",
        library_name="cfnseg",
        pipeline_tag=TASKS[settings.level],
        tags=["cfnseg", settings.name, settings.encoder],
        metrics=["mean_iou" if settings.level == "pixel" else "accuracy"],
        model_name=name,
        eval_results=list(_results(weights, origin)) or None,
    )
    sections = [
        _lead(weights),
        _scores(weights, origin),
        _use(repo, weights),
        _classes(weights, origin),
        _training(origin),
        _license(weights, license),
    ]
    body = [line for section in sections for line in ("", *section)]
    return f"---\n{data.to_yaml()}\n---\n\n{document([f'# {name}', *body])}"


def _results(weights: Weights, origin: Origin) -> Iterator[EvalResult]:
    """The scores as the hub reads them, in percent."""
    from huggingface_hub import EvalResult

    for scored in origin.scored:
        for score in scored.scores:
            interval = "" if score.interval == NONE else f"95 % interval {ends(score.interval)}"
            how = ", ".join(filter(None, [interval, scored.inference]))
            yield EvalResult(
                task_type=TASKS[weights.settings.level],
                dataset_type=scored.data,
                dataset_name=scored.data,
                dataset_split=scored.split,
                metric_type=score.metric,
                metric_name=f"{score.name} ({how})" if how else score.name,
                metric_value=round(100 * score.value, 1),
            )


def _lead(weights: Weights) -> list[str]:
    settings, data = weights.settings, weights.score.get("data")
    network, source = settings.name, ""
    if network == "cfn":
        network, source = "Convolutional Fusion Network", f" ([Liu, Guo, Lew 2017]({PAPER}))"
    parameters = sum(p.numel() for p in weights.model.parameters()) / 1e6
    kind = "segments images of any size" if settings.level == "pixel" else "classifies images"
    if bands := bands_of(weights.model):
        kind = f"segments images of {bands}"
    trained = f", trained on {data}" if data else ""
    return [
        f"A {network}{source} on {settings.encoder} that {kind} into {len(weights.labels)} classes"
        f"{trained}. {parameters:.1f} M parameters. For cfnseg {__version__} or newer."
    ]


def _scores(weights: Weights, origin: Origin) -> list[str]:
    if not origin.scored:
        return []
    first, level = origin.scored[0], weights.settings.level
    main = first.scores[0]
    known = main.interval != NONE
    interval = f" (95 % interval {ends(main.interval)})" if known else ""
    counted = [score for score in first.classes.values() if score.value is not None]
    over = f" over {len(counted)} of {len(first.classes)} classes" if counted else ""
    views = any(scored.inference for scored in origin.scored)
    titles = ["data", "split", *["inference"] * views, "images"]
    rows = [
        [scored.data, scored.split, *[scored.inference or "plain"] * views, f"{scored.images:,}"]
        + [_cell(score) for score in scored.scores]
        for scored in origin.scored
    ]
    lines = [
        "## Scores",
        "",
        f"**{main.name} {percent(main.value)}{interval}{over} on {first.data} {first.split}, "
        f"{plural(first.images, 'image')}**",
        "",
        *table([*titles, *(score.name for score in first.scores)], rows, left=2 + views),
        "",
        "In percent" + "; in brackets the 95 % interval, by bootstrap over images" * known + ".",
    ]
    step, steps = (weights.score.get(key) for key in ("step", "steps"))
    if step is not None and steps is not None and step != steps:
        split = weights.score.get("split")
        lines[-1] += f" The score on {split} chose the weights: those of step {step} of {steps}."
    worst = min(
        ((s.value, name) for name, s in first.classes.items() if s.value is not None), default=None
    )
    if worst:
        measure = "IoU" if level == "pixel" else "accuracy"
        lines[-1] += f" Weakest: {worst[1]}, {measure} {percent(worst[0])}."
    return lines


def _cell(score: Score) -> str:
    interval = "" if score.interval == NONE else f" ({ends(score.interval)})"
    return f"{percent(score.value)}{interval}"


def _use(repo: str, weights: Weights) -> list[str]:
    name, root = f"hf:{repo}", "" if weights.score.get("data") == "shapes" else " --root DIR"
    bands = bands_of(weights.model)
    photo = "image.tif" if bands else "photo.jpg"
    more = f", {len(bands)}" if bands else ""
    if weights.settings.level == "pixel":
        commands = [
            f"cfnseg infer {photo} --weights {name}",
            f"cfnseg eval {name}{root}",
        ]
        code = [
            "import cfnseg",
            "",
            f'predict = cfnseg.Predictor("{name}")',
            f'result = predict(cfnseg.read_image("{photo}"{more}))',
            "print(result.mask.shape, result.present)  # (H, W) uint8, {class: probability}",
        ]
    else:
        commands = [f"cfnseg eval {name}{root}"]
        code = [
            "import cfnseg, torch",
            "",
            f'weights = cfnseg.load("{name}")',
            'image = torch.from_numpy(cfnseg.read_image("photo.jpg")).permute(2, 0, 1)',
            "logits = weights.model(image[None]).image  # (1, C)",
            "print(weights.labels.names[logits.argmax()])",
        ]
    return [
        "## Use",
        "",
        *("```", f"pip install {GEO if bands else 'cfnseg'}", *commands, "```"),
        "",
        *("```python", *code, "```"),
        "",
        f"`{name}@REVISION` names a branch, a tag or a commit.",
    ]


def _classes(weights: Weights, origin: Origin) -> list[str]:
    labels = weights.labels
    titles, columns = ["Class"], [labels.names]
    note = ""
    if isinstance(labels, LabelMap):
        titles += ["Id", "Colour"]
        columns.append([str(label.id) for label in labels.labels])
        columns.append([" ".join(map(str, label.color)) for label in labels.labels])
        note = (
            f"`cfnseg infer` writes these ids, and {labels.void} for none. `result.mask` counts "
            "the classes from 0, in this order. Colours are red, green, blue."
        )
    for scored in origin.scored:
        if scored.classes:
            where = scored.split if len(origin.scored) > 1 else ""
            titles.append(f"{next(iter(scored.classes.values())).name} {where}".strip())
            columns.append([_cell(scored.classes[name]) for name in labels.names])
    return ["## Classes", "", *table(titles, list(zip(*columns))), "", note]


def _training(origin: Origin) -> list[str]:
    if not origin.command:
        return []
    known = origin.environment
    where = [f"{key} {known[key]}" for key in ("cfnseg", "torch", "timm") if key in known]
    where += [known["device"]] if "device" in known else []
    return [
        "## Training",
        "",
        *("```", _wrapped(origin.command), "```"),
        "",
        f"{', '.join(where)}. Folders and hardware are left out." if where else "",
    ]


def _wrapped(command: str) -> str:
    """A command on lines that a page shows whole."""
    first, *options = re.split(r" (?=--)", command)
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) < WIDTH:
            lines[-1] += f" {option}"
        else:
            lines.append(f"    {option}")
    return " \\\n".join(lines)


def _license(weights: Weights, license: str) -> list[str]:
    data = weights.score.get("data")
    unknown = "Unknown. Ask who published the weights before you use them"
    if data:
        unknown += f"; the licence of {data}, which they were trained on, may restrict their use"
    return ["## Licence", "", f"{license or unknown}."]

"""Where weights come from: the scores and the training that lie next to their file."""

from __future__ import annotations

import glob
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cfnseg.config import Config, load_config
from cfnseg.config_values import from_dict, to_dict
from cfnseg.data.dataset import is_trained_on
from cfnseg.errors import UserError
from cfnseg.models.hub_file import is_hub_name
from cfnseg.models.weights import Weights
from cfnseg.shipped import recipes

# settings that change no weights; some name places that are nobody else's business
LEFT_OUT = {"name", "runs", "data.root", "data.workers", "data.download", "train.accelerator"}
LEFT_OUT |= {"train.save_every", "train.log_every", "train.pictures"}
SCORED = {"data", "root", "split", "weights"}  # facts of a report; the others are of inference
NONE: tuple[None, None] = (None, None)
SLACK = 60.0  # seconds by which a copy of a folder may mix up its files' order
TRAIN = {"pixel": "cfnseg train", "image": "cfnseg classify"}


class Score(NamedTuple):
    """A score in 0..1: its name, the hub's id of the metric, its 95 % interval."""

    name: str
    metric: str
    value: float
    interval: tuple[float | None, float | None] = NONE


class Scored(NamedTuple):
    """What was counted on one split.

    Attributes:
        data, split, images: of the data set.
        inference: settings that are not the usual ones, such as "flip True".
        scores: the main one first.
        classes: each class's value in 0..1 and interval; {} without a report.
    """

    data: str
    split: str
    images: int
    inference: str
    scores: list[Score]
    classes: dict[str, Score]


@dataclass(frozen=True)
class Origin:
    """What is known of a weights file.

    Attributes:
        scored: by split; from reports, else from the file's header.
        command: of the training, "" if no run folder is there.
        environment: where the run was, as its config.json says.
        notes: what the user should know of this.
    """

    scored: list[Scored]
    command: str
    environment: dict[str, str]
    notes: list[str]


def find_origin(path: Path, weights: Weights) -> Origin:
    """Read the reports (report/ and <file's name>_<split>/) and config.json next to a weights file.

    A report of another file or other classes is left out, and one that is older than the file.
    """
    scored: dict[tuple[str, ...], Scored] = {}
    notes = []
    others = path.parent.glob(f"{glob.escape(path.stem)}_*/report.json")
    for place in [path.with_name("report") / "report.json", *sorted(others)]:
        found = _scored(_read_json(place), path.name, weights)
        if found and place.stat().st_mtime < path.stat().st_mtime - SLACK:
            notes.append(f"{place} is older than {path.name} and was left out; cfnseg eval anew")
        elif found and is_trained_on(found.split):
            notes.append(f"{place} was left out: {path.name} was trained on what it scored")
        elif found:
            scored.setdefault((found.data, found.split, found.inference), found)
            notes.append(f"scores: {place}")
    if not scored:
        notes.append(f"no report next to {path}: the card has no interval; cfnseg eval makes one")
    values = _read_json(path.with_name("config.json"))
    environment = values.pop("environment", {}) if isinstance(values, dict) else {}
    command = ""
    try:
        config = from_dict(Config, values)
        if config.model == weights.settings:
            command = training_command(config)
            notes.append(f"training: {path.with_name('config.json')}")
    except UserError:  # none, or of another program
        pass
    known = {key: str(value) for key, value in environment.items()} if command else {}
    return Origin([*scored.values()] or _of_header(weights), command, known, notes)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _scored(report: Any, name: str, weights: Weights) -> Scored | None:
    """What a report.json says; None if it is none, or not of these weights."""
    pixel = weights.settings.level == "pixel"
    try:
        facts, classes = report["facts"], report["classes"]
        if (
            Path(facts["weights"]).name != name
            or [entry["name"] for entry in classes] != weights.labels.names
        ):
            return None
        scores = _pixel_scores(report) if pixel else _image_scores(report)
        return Scored(
            facts["data"],
            facts["split"],
            report["num_images"],
            ", ".join(f"{key} {facts[key]}" for key in sorted(facts.keys() - SCORED)),
            [score for score in scores if score.value is not None],
            {c["name"]: _class_score(c, pixel) for c in classes},
        )
    except (KeyError, TypeError, ValueError):
        return None


def _pixel_scores(report: dict[str, Any]) -> list[Score]:
    edges = tuple(report.get("boundary_miou_ci95", NONE))
    return [
        Score("mIoU", "mean_iou", report["miou"], tuple(report["miou_ci95"])),
        Score("boundary mIoU", "boundary_miou", report["boundary_miou"], edges),
        Score("pixel accuracy", "pixel_accuracy", report["pixel_accuracy"]),
    ]


def _image_scores(report: dict[str, Any]) -> list[Score]:
    low, high = report["top1_error_ci95"]
    return [
        Score("accuracy", "accuracy", 1 - report["top1_error"], (1 - high, 1 - low)),
        Score("top-5 accuracy", "top5_accuracy", 1 - report["top5_error"]),
    ]


def _class_score(entry: dict[str, Any], pixel: bool) -> Score:
    if pixel:
        return Score("IoU", "iou", entry["iou"], tuple(entry["iou_ci95"]))
    error = entry["error"]
    return Score("accuracy", "accuracy", None if error is None else 1 - error)


def _of_header(weights: Weights) -> list[Scored]:
    """What the header has: the score of the validation that chose the weights, or nothing."""
    score = weights.score
    if isinstance(score.get("miou"), float):
        found = Score("mIoU", "mean_iou", score["miou"])
    elif isinstance(score.get("top1_error"), float):
        found = Score("accuracy", "accuracy", 1 - score["top1_error"])
    else:
        return []
    split, images = score.get("split", ""), score.get("images", 0)
    if is_trained_on(split):
        return []
    return [Scored(score.get("data", ""), split, images, "", [found], {})]


def training_command(config: Config) -> str:
    """The command that trains with these settings: the recipe that differs least, and options.

    Folders, workers and hardware are left out, and of the files that it starts from the folders.
    """
    mine = _flat(config)
    options = {}
    for name in recipes():
        if not name.startswith("ablation_"):  # a suite, which is no config
            theirs = _flat(load_config(name))
            options[name] = {key: value for key, value in mine.items() if value != theirs[key]}
    if not options:  # an installation without recipes
        return ""
    recipe = min(options, key=lambda name: (len(options[name]), name != config.name))
    words = [*TRAIN[config.model.level].split(), recipe]
    for key, value in options[recipe].items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{key.replace('_', '-')}", *map(_shown, values)]
    if config.data.root:
        words += ["--data.root", "DIR"]
    return shlex.join(words)


def _flat(config: Config) -> dict[str, Any]:
    """Settings by the name of their option, without those of `LEFT_OUT`."""
    found = {}
    for section, values in to_dict(config).items():
        pairs = values.items() if isinstance(values, dict) else [("", values)]
        found |= {f"{section}.{key}".rstrip("."): value for key, value in pairs}
    return {key: value for key, value in found.items() if key not in LEFT_OUT}


def _shown(value: Any) -> str:
    """A value as its option takes it; of a file's path the name."""
    path = isinstance(value, str) and "/" in value and not is_hub_name(value)
    return Path(value).name if path else str(value)

"""A recipe from the data: a survey, a few timed steps, a config with the reason of each choice."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cfnseg.config import Config, SegmentationData, check
from cfnseg.errors import UserError, demand
from cfnseg.plan.config_text import config_text, literal
from cfnseg.plan.held_out import open_splits
from cfnseg.plan.pace import Machine, Pace, measure_pace, this_machine
from cfnseg.plan.planning import Choice, draft, plan
from cfnseg.plan.survey import look

HOURS_CPU, HOURS_CUDA = 1.0, 8.0
TITLE = "CFN, {encoder}: planned for {data}, {images:,} training images, {classes} classes."


def write_plan(
    root: str,
    name: SegmentationData = "folder",
    hours: float | None = None,
    holdout: str = "",
    out: Path | None = None,
    machine: Machine | None = None,
    pace: Pace | None = None,
) -> Config:
    """Look at a data set and this machine, write a config file, and print the reasons.

    Args:
        root, name: as data.root and data.name.
        hours: of the whole run; None = 1 on a CPU, 8 on a GPU.
        holdout: as data.holdout; "" = the val split, or a part of the training images.
        out: the file; None = <root's name>_plan.py here.
        machine, pace: measured if None.

    Returns:
        The config, as `cfnseg.config.load_config` reads it from the file.

    Raises:
        UserError: no such data, one class, no validation data, hours of 0 or less, or a file that
            is there or cannot be written.
    """
    demand(hours is None or hours > 0, "hours", hours, "above 0")
    out = out or Path(f"{Path(root).resolve().name if root else name}_plan.py")
    _demand_free(out)
    train, val, held, why = open_splits(name, root, holdout)
    machine = machine or this_machine()
    hours = hours or (HOURS_CUDA if machine.cuda else HOURS_CPU)
    survey = look(train, val, min(8, machine.cores))
    pace = pace or measure_pace(draft(survey, machine), train)
    config, choices = plan(survey, machine, pace, name, root, (held, why), hours, out.stem)
    check(config)
    title = TITLE.format(
        encoder=config.model.encoder,
        data=name if name != "folder" else Path(root).name or name,
        images=survey.images,
        classes=len(survey.names),
    )
    command = f"    cfnseg train {shlex.quote(str(out))}"
    told = f"Planned for {hours:g} h on: {machine.name}. Not trained: no score."
    text = config_text(title, [command, "", told], choices)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}") from None
    show(choices, Console(highlight=False))
    print(f"{out}: read it, edit it, then: cfnseg train {shlex.quote(str(out))}")
    return config


def _demand_free(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out} exists and was not overwritten; give another --out", code=2)
    if out.suffix != ".py":
        raise UserError(f"--out is {out}; expected a file NAME.py", code=2)
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is no folder; expected one for {out.name}", code=2)


def show(choices: list[Choice], console: Console) -> None:
    """Print the choices and their reasons as a table."""
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value", "because"):
        table.add_column(column, overflow="fold")
    for choice in choices:
        names = "\n".join(f"{choice.section}.{name}" for name in choice.values)
        values = "\n".join(literal(value).strip('"') for value in choice.values.values())
        table.add_row(names, values, choice.reason)
    console.print(table, markup=False)

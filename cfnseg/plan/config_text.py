"""A planned config as a file of Python, like the recipes, with the reason above each choice."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from cfnseg.plan.planning import Choice

WIDTH = 100
KINDS = {"model": "Model", "data": "Data", "optim": "Optim", "loss": "Loss", "train": "Train"}


def config_text(title: str, lines: list[str], choices: list[Choice]) -> str:
    """The file's content.

    Args:
        title: first line of its docstring.
        lines: the others, indented ones as they are.
        choices: what `cfnseg.plan.planning.plan` chose.
    """
    kinds = {kind: [c for c in choices if c.section == kind] for kind in KINDS}
    doc = "\n".join([title, "", *lines]).replace("\\", "\\\\").replace('"""', "'''")
    text = [f'"""{doc}\n"""', ""]
    text += [
        "from cfnseg.config import Config, Data, Loss, Model, Optim, Train",
        "",
        "config = Config(",
    ]
    for kind, own in kinds.items():
        text.append(f"    {kind}={KINDS[kind]}(")
        for choice in own:
            reason = textwrap.wrap(choice.reason, WIDTH - 10, break_on_hyphens=False)
            text += [f"        # {line}" for line in reason]
            text += [f"        {name}={literal(value)}," for name, value in choice.values.items()]
        text.append("    ),")
    return "\n".join([*text, ")", ""])


def literal(value: Any) -> str:
    """A value as Python source, strings in double quotes."""
    return json.dumps(value) if isinstance(value, str) else repr(value)

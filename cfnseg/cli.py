"""The command line, ``cfnseg COMMAND ...`` or ``python -m cfnseg COMMAND ...``: lazy tables.

Help on the commands imports none of them. Exit codes: 0, 1 for work that failed, 2 for wrong
usage, 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cfnseg.errors import UserError, unknown
from cfnseg.streams import run_tool

if TYPE_CHECKING:
    from cfnseg.config import Config


class Command(NamedTuple):
    """A command of a table.

    Attributes:
        target: "module:function"; tyro makes the options of its parameters.
        about: a line of help; "" keeps it out of the list.
        recipe: the first argument is a recipe or a config file. Its ``Config`` is the default of
            the function's parameter ``config``, and each setting is an option.
    """

    target: str
    about: str = ""
    recipe: bool = False


BENCH = {
    "ops": Command("cfnseg.lab.benches:bench_ops", "fusion, loss and class maps against torch"),
    "models": Command(
        "cfnseg.lab.benches:bench_models", "training step and inference of each model"
    ),
    "step": Command("cfnseg.lab.benches:bench_step", "training samples and parameter updates"),
    "scoring": Command("cfnseg.lab.benches:bench_scoring", "scoring masks, against reading them"),
    "deploy": Command(
        "cfnseg.export.export_commands:bench_deploy", "a model by torch, onnxruntime, OpenVINO"
    ),
    "ablation": Command("cfnseg.lab.benches:ablation", "train and score each system of a suite"),
    "encodings": Command("cfnseg.lab.benches:encodings", "BoW, VLAD, Fisher, the fused feature"),
}
COMMANDS: dict[str, Command | dict[str, Command]] = {
    "train": Command("cfnseg.commands:train", "train a segmentation model", recipe=True),
    "classify": Command("cfnseg.commands:classify", "train a classification model", recipe=True),
    "eval": Command("cfnseg.commands:evaluate", "score weights, or masks of any program"),
    "infer": Command(
        "cfnseg.commands:infer", "segment images, folders of images, clips and cameras"
    ),
    "export": Command(
        "cfnseg.export.export_commands:export", "write a model as one ONNX or torch file"
    ),
    "demo": Command("cfnseg.commands:demo", "a web page that segments what visitors drop on it"),
    "compare": Command("cfnseg.commands:compare", "compare two scored runs on the same images"),
    "doctor": Command("cfnseg.commands:doctor", "examine a data set, fix it", recipe=True),
    "convert": Command(
        "cfnseg.commands:convert", "turn an annotation tool's export into a data set"
    ),
    "plan": Command("cfnseg.commands:plan", "write a recipe from a data set and this machine"),
    "prepare": Command("cfnseg.commands:prepare", "fetch, check and convert an official data set"),
    "submit": Command("cfnseg.commands:submit", "pack masks for a test server"),
    "push": Command(
        "cfnseg.export.export_commands:push", "upload weights and a card to the Hugging Face Hub"
    ),
    "recipes": Command("cfnseg.commands:recipes", "list the configs that ship, copy one"),
    "bench": BENCH,
    "check": Command(
        "cfnseg.lab.check:check", "what runs on this machine, and whether it is right"
    ),
    "completion": Command("cfnseg.commands:completion", "print the script of bash or zsh"),
    "eval_seg": Command("cfnseg.commands:eval_seg"),
    "eval_cls": Command("cfnseg.commands:eval_cls"),
}


def main() -> None:
    """The command ``cfnseg``: run the command that the command line names, and exit."""
    run_tool(lambda: sys.exit(dispatch(COMMANDS, "cfnseg", sys.argv[1:])))


def run(name: str, what: str = "") -> None:
    """Run one command, e.g. ``run("bench", "ops")``, with the arguments of a script, and exit."""
    entry = COMMANDS[name]
    command = entry[what] if isinstance(entry, dict) else entry
    run_tool(lambda: sys.exit(call(command, Path(sys.argv[0]).name, sys.argv[1:])))


def dispatch(table: dict[str, Any], prog: str, argv: list[str]) -> int | None:
    """Run the command of ``table`` that ``argv`` begins with; its exit code.

    Raises UserError (usage) if there is none, or none of that name.
    """
    name, *rest = argv or [""]
    shown = {key: entry for key, entry in table.items() if isinstance(entry, dict) or entry.about}
    if name in ("-h", "--help"):
        print(usage(shown, prog))
        return 0
    if name == "--version":
        from cfnseg import __version__

        print(f"cfnseg {__version__}")
        return 0
    if not name:
        raise UserError(f"which command?\n{usage(shown, prog)}", code=2)
    if name not in shown:
        raise unknown("command", name, shown)
    work = shown[name]
    return (dispatch if isinstance(work, dict) else call)(work, f"{prog} {name}", rest)


def usage(table: dict[str, Any], prog: str) -> str:
    """The list of a table's commands."""
    lines = [f"usage: {prog} COMMAND [--help]\n"]
    for name, entry in table.items():
        about = f"measure: {', '.join(entry)}" if isinstance(entry, dict) else entry.about
        lines.append(f"  {name:12}{about}")
    if table is not BENCH:
        lines.append('\nTab completes commands and options after: eval "$(cfnseg completion bash)"')
    return "\n".join(lines)


def call(command: Command, prog: str, argv: list[str]) -> int | None:
    """Parse the arguments of a command, and run it; its exit code, None for success."""
    if command.recipe:
        config, argv = split_recipe(argv)
        prog = f"{prog} RECIPE"
    work = function_of(command)
    if command.recipe:
        work = functools.partial(work, config=config)
    import tyro

    return tyro.cli(work, args=argv, prog=prog)


def function_of(command: Command) -> Callable[..., int | None]:
    """The function behind a command."""
    module, _, name = command.target.partition(":")
    return getattr(import_module(module), name)


def split_recipe(argv: list[str]) -> tuple[Config, list[str]]:
    """The config of the recipe or config file that ``argv`` begins with, and the other words.

    Raises UserError (usage) if there is none, unless --help is asked for.
    """
    from cfnseg.config import Config, load_config

    config = Config()
    if argv and not argv[0].startswith("-"):
        config, argv = load_config(argv[0]), argv[1:]
    elif not {"-h", "--help"} & set(argv):
        raise UserError(
            "which config? Give a recipe's name, such as shapes_cfn (cfnseg recipes "
            "lists them), or a config file",
            code=2,
        )
    # one string of the words, so that an option and its value match with and without "="
    words = "\0".join(["", *argv, ""])
    # the batch stays the file's; how it is split is found at the start
    words = re.sub("\0--train.batch[=\0]auto(?=\0)", "\0--train.accumulate=0", words)
    if (renamed := re.sub("\0--mend(?=[=\0])", "\0--fix", words)) != words:
        print("note: --mend is now --fix; the old name works too", file=sys.stderr, flush=True)
    return config, renamed.split("\0")[1:-1]

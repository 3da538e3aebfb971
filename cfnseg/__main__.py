"""``python -m cfnseg VERB``: a table of commands, each loaded when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module

from cfnseg.cli import run_tool
from cfnseg.errors import UserError, unknown

VERBS = {"check": ("cfnseg.check", "what runs on this machine, and whether it is right: paste it into a bug report")}
USAGE = "usage: python -m cfnseg VERB [--help]\n\n" + "\n".join(f"  {verb:10}{about}" for verb, (_, about) in VERBS.items())


def main() -> int:
    """Run the verb of the command line; its exit code.

    Raises UserError with exit code 2 if there is none, or none of that name.
    """
    verb, *rest = sys.argv[1:] or [""]
    if verb in ("-h", "--help"):
        print(USAGE)
        return 0
    if not verb:
        raise UserError(f"which verb?\n{USAGE}", code=2)
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    return import_module(VERBS[verb][0]).main(rest)


if __name__ == "__main__":
    run_tool(lambda: sys.exit(main()))

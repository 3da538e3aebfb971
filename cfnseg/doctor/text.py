"""The doctor's words on the terminal: coloured there, plain when piped."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from cfnseg.doctor.findings import FEW, SEVERITIES, many

STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold blue"}


def verdict(report: dict[str, Any]) -> str:
    """How many findings of each kind."""
    counts = report["counts"]
    if not counts["error"] and not counts["warning"]:
        return f"Nothing is wrong with it ({many(counts['note'], 'note')})." if counts["note"] else "Nothing is wrong with it."
    return ", ".join(many(counts[s], s) for s in SEVERITIES) + "."


def tell(report: dict[str, Any], console: Console) -> None:
    """Print the content of doctor.json; see `cfnseg.doctor.build.examine_data`."""
    def say(*parts: str | tuple[str, str]) -> None:
        console.print(Text.assemble(*parts), soft_wrap=True)

    splits = ", ".join(f"{s['name']} {s['pairs']:,}" for s in report["splits"])
    say((f"{report['data']}{' in ' + report['root'] if report['root'] else ''}", "bold"), f": pairs of image and mask: {splits or 'none'}")
    for finding in report["findings"]:
        count = f" ({finding['count']:,})" if finding["count"] else ""
        severity = finding["severity"]
        say("\n", (severity, STYLES[severity]), " ", (f"{finding['title']}{count}", "bold"), (f"  [{finding['kind']}]", "dim"))
        expected = "" if severity == "note" else finding["expected"]
        for name, value in (("", finding["text"]), ("expected: ", expected), ("files: ", _files(finding))):
            if value:
                say("  ", (name, "dim"), value)
        for line in finding["mend"]:
            say("  ", ("mend: ", "green"), line)
        if finding["classes_txt"]:
            say("  ", ("mend: ", "green"), "a classes.txt that fits:")
            say(*(f"    {line}\n" for line in finding["classes_txt"].splitlines()))
    if report["classes"]:
        say("\n", ("share of the counted pixels (images with the class)", "bold"))
        say(*_histogram(report))
    say((verdict(report), "bold"))


def _files(finding: dict[str, Any]) -> str:
    shown = ", ".join(finding["files"][:FEW])
    return f"{shown} and {finding['count'] - FEW:,} more" if finding["count"] > FEW else shown


def _histogram(report: dict[str, Any]) -> list[str]:
    width = max(len(c["name"]) for c in report["classes"])
    rows = [("", "id", *(s["name"] for s in report["splits"]))]
    for i, c in enumerate(report["classes"]):
        own = [s["classes"][i] for s in report["splits"]]
        rows.append((c["name"], str(c["id"]), *(f"{k['share']:.2%} ({k['images']:,})" for k in own)))
    rows.append(("ignored", "", *(f"{s['ignored_share']:.2%}" for s in report["splits"])))
    widths = [max(width, 7), 3, *(max(len(row[k]) for row in rows) for k in range(2, len(rows[0])))]
    return ["  ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths))) + "\n" for row in rows]

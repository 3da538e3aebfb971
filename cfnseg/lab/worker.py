"""One job in its own process: ``python -m cfnseg.lab.worker JOB``, JSON from `command`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cfnseg.config import Config
from cfnseg.config_values import from_dict, to_dict
from cfnseg.storage import write_atomic


def command(
    config: Config,
    out: Path,
    size: tuple[int, int] | None = None,
    classes: int = 0,
    rounds: int = 3,
) -> list[str]:
    """The command line of a process that writes one result to ``out`` as JSON.

    Args:
        config: what is trained and scored; with ``size``, what is measured.
        out: the result: config and what `score_of` or `cfnseg.lab.cost.cost_of` returns; of a cost
            also size and classes.
        size, classes, rounds: as `cfnseg.lab.cost.cost_of` takes them; None = train and score.

    The process saves and stops when the caller's process is gone.
    """
    cost = {"size": size, "classes": classes, "rounds": rounds} if size else None
    job = {"config": to_dict(config), "out": str(out), "cost": cost, "parent": os.getpid()}
    return [sys.executable, "-m", "cfnseg.lab.worker", json.dumps(job)]


def main(text: str) -> None:
    """Do the job."""
    from cfnseg.lab.cost import cost_of

    job = json.loads(text)
    threading.Thread(target=_stop_without, args=(job["parent"],), daemon=True).start()
    config, cost = from_dict(Config, job["config"]), job["cost"]
    found = cost_of(config, **cost) | cost if cost else score_of(config)
    text = json.dumps({"config": job["config"], **found}, separators=(",", ":"))
    write_atomic(job["out"], lambda path: path.write_text(text))


def score_of(config: Config) -> dict[str, Any]:
    """Train, or resume, to the end; then read the scores of the last weights from report.json.

    Returns:
        metric: "miou" or "top1_error".
        score: its value.
        scores: all scores of the report by name.
        counts: (images, 3, C) integers as `cfnseg.metrics.uncertainty` takes them, or (images,)
            with 1 for a wrong class and 0 for a right one.
        environment: of the run.
    """
    from cfnseg.workflows import train

    folder = Path(config.runs) / config.name
    train(config, resume=(folder / "last.ckpt").exists())
    report = json.loads((folder / "report" / "report.json").read_text())
    if "miou" in report:
        metric, counts = "miou", [image["counts"] for image in report["images"]]
    else:
        wrong = [image["truth"] != image["prediction"] for image in report["images"]]
        metric, counts = "top1_error", [int(each) for each in wrong]
    return {
        "metric": metric,
        "counts": counts,
        "score": report[metric],
        "scores": {name: value for name, value in report.items() if isinstance(value, float)},
        "environment": json.loads((folder / "config.json").read_text())["environment"],
    }


def _stop_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    from cfnseg.streams import run_tool

    run_tool(lambda: main(sys.argv[1]))

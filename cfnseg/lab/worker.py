"""One job of a benchmark in a process of its own: python -m cfnseg.lab.worker JOB (JSON; see `cfnseg.lab.ablation`)."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cfnseg.config import Config, config_from_dict
from cfnseg.lab.cost import cost_of
from cfnseg.storage import write_atomic
from cfnseg.streams import run_tool
from cfnseg.workflows import train


def main(text: str) -> None:
    """Train and score, or measure the cost, and write the result."""
    job = json.loads(text)
    _stop_without(job["parent"])
    config = config_from_dict(job["config"])
    measured = cost_of(config, tuple(job["size"]), job["classes"], job.get("rounds", 3)) if job["size"] else score_of(config)
    result = {"config": job["config"], **measured} | ({"size": job["size"], "classes": job["classes"]} if job["size"] else {})
    write_atomic(job["out"], lambda beside: beside.write_text(json.dumps(result, separators=(",", ":"))))


def score_of(config: Config) -> dict[str, Any]:
    """Train, or go on, to the end; then report.json's scores of the run's last weights and what a paired test needs.

    Returns:
        metric, "miou" or "top1_error"; score, its value; scores, all of the report by name; counts, (images, 3, C) integers
        as `cfnseg.metrics.uncertainty` takes them, or (images,) 0 or 1, wrong; environment.
    """
    folder = Path(config.runs) / config.name
    train(config, resume=(folder / "last.ckpt").exists())
    report = json.loads((folder / "report" / "report.json").read_text())
    scores = {k: v for k, v in report.items() if isinstance(v, float)}
    environment = json.loads((folder / "config.json").read_text())["environment"]
    if "miou" in report:
        found = {"metric": "miou", "counts": [i["counts"] for i in report["images"]]}
    else:
        found = {"metric": "top1_error", "counts": [int(i["truth"] != i["prediction"]) for i in report["images"]]}
    return {**found, "score": report[found["metric"]], "scores": scores, "environment": environment}


def _stop_without(parent: int) -> None:
    """Save and stop when the process that started this one is gone."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    run_tool(lambda: main(sys.argv[1]))

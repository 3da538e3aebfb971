"""TensorBoard, CSV, Weights & Biases and MLflow hold what log.jsonl does, read by their readers."""

import csv
import dataclasses
import json
import os
import signal
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cfnseg import workflows
from cfnseg.errors import Stopped, UserError
from cfnseg.training import loggers as tools
from cfnseg.training.checkpoint import load_checkpoint
from cfnseg.training.log import read_log
from cfnseg.training.run import Run
from tests import processes
from tests.conftest import changed
from tests.training.test_resume import command, kill_after_a_save

EVERY = ("tensorboard", "csv", "wandb", "mlflow")
NUMBERS = ("train/loss", "train/grad_norm", "train/lr", "val/loss", "val/miou")
IN_LOG = dict(zip(NUMBERS, ("loss", "grad_norm", "lr", "val_loss", "val_miou")))


def needs(name: str) -> None:
    if name != "csv":
        pytest.importorskip(name)
    if name == "mlflow":
        pytest.importorskip("sqlalchemy")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path) -> Iterator[None]:
    """No account, no network; the variables are as before afterwards."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


Row = tuple[str, int, float]


def tensorboard_rows(folder: Path) -> list[Row]:
    return [
        (tag, event.step, event.value)
        for tag in events(folder).Tags()["scalars"]
        for event in events(folder).Scalars(tag)
    ]


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0}).Reload()


def csv_rows(folder: Path) -> list[Row]:
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return [
            (name, int(row["step"]), float(value))
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and name != "step"
        ]


def wandb_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


def wandb_records(path: Path) -> Iterator:
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


def wandb_rows(folder: Path) -> list[Row]:
    rows = []
    for path in wandb_files(folder):
        for record in wandb_records(path):
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            numbers = {k: v for k, v in values.items() if k.startswith(("train/", "val"))}
            rows += [
                (name, values["trainer/global_step"], value)
                for name, value in numbers.items()
                if isinstance(value, float | int) and not name.startswith("validation/")
            ]
    return rows


def mlflow_run(folder: Path):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.parent.absolute() / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("cfnseg").experiment_id])
    return client, run


def mlflow_rows(folder: Path) -> list[Row]:
    client, run = mlflow_run(folder)
    return [
        (name, metric.step, metric.value)
        for name in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, name)
    ]


READERS = dict(zip(EVERY, (tensorboard_rows, csv_rows, wandb_rows, mlflow_rows)))


def check_rows(rows: list[Row], folder: Path, once: bool = True) -> None:
    """The rows have every number of log.jsonl, each ``once``, and each class's IoU."""
    expected = {
        (name, row["step"]): row[key]
        for row in read_log(folder / "log.jsonl")
        for name, key in IN_LOG.items()
        if key in row
    }
    found = {(name, step): value for name, step, value in rows if name in IN_LOG}
    assert found.keys() == expected.keys()
    for place, value in expected.items():
        assert found[place] == pytest.approx(value, rel=1e-6), place
    if once:
        assert max(Counter((name, step) for name, step, _ in rows).values()) == 1
    by_class = {name for name, _, _ in rows if name.startswith("val_iou/")}
    assert {"val_iou/sky", "val_iou/ground"} <= by_class
    assert all(value > 0 for name, _, value in rows if name == "train/images_per_second")
    best = max(row["val_miou"] for row in read_log(folder / "log.jsonl") if "val_miou" in row)
    last = [value for name, step, value in rows if name == "val/best" and step][-1]
    assert last == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_a_run_and_its_continuation(tiny, monkeypatch, capsys, name):
    """It breaks after 5 logged steps, the last save is at 4: no step is there twice."""
    needs(name)
    config = changed(tiny, "train", loggers=(name,), log_every=1)
    folder, step = Path(tiny.runs) / "tiny", Run._step
    with monkeypatch.context() as patch:

        def broken(self, batch):
            if self.state["step"] == 5:
                raise Stopped(signal.SIGTERM)
            return step(self, batch)

        patch.setattr(Run, "_step", broken)
        with pytest.raises(Stopped):
            workflows.train(config)
    known = json.loads((folder / "loggers.json").read_text())
    assert max(s for n, s, _ in READERS[name](folder) if n == "train/loss") == 5
    if name == "mlflow":
        assert mlflow_run(folder)[1].info.status == "KILLED"
    workflows.train(config, resume=True)
    said = capsys.readouterr()
    assert said.err == "" and f"logging with 2 validation images to {name} (" in said.out
    assert json.loads((folder / "loggers.json").read_text()) == known
    # offline, W&B cannot say what it has; the second of two equal rows replaces the first
    check_rows(READERS[name](folder), folder, once=name != "wandb")
    globals()[f"check_{name}"](folder, known[name])


def check_tensorboard(folder: Path, _: str) -> None:
    found = events(folder)
    assert [(image.step, image.width) for image in found.Images("validation")] == [
        (step, found.Images("validation")[0].width) for step in (3, 6)
    ]
    assert found.Tensors("report/text_summary")[0].step in (3, 6)
    assert "mIoU" in str(found.Tensors("report/text_summary")[0].tensor_proto)
    plugin = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"model.encoder" in plugin and b"test_efficientnet" in plugin
    assert len(list((folder / "tensorboard").iterdir())) == 2


def check_csv(folder: Path, _: str) -> None:
    assert [path.name for path in (folder / "csv").iterdir()] == ["metrics.csv"]


def check_wandb(folder: Path, number: str) -> None:
    files = wandb_files(folder)
    assert len(files) == 2 and {path.name for path in files} == {f"run-{number}.wandb"}
    first, second = (list(wandb_records(path)) for path in files)
    for records in (first, second):
        run = next(record.run for record in records if record.HasField("run"))
        assert (run.run_id, run.project, run.display_name) == (number, "cfnseg", "tiny")
        assert not run.git.remote_url
    assert settings_of(first)["optim.lr"] == 3e-3 and not settings_of(second)
    assert [record.exit.exit_code for record in first if record.HasField("exit")] == [143]
    assert [record.exit.exit_code for record in second if record.HasField("exit")] == [0]
    assert len(list(folder.glob("wandb/offline*/files/media/images/*.jpg"))) == 2
    (report,) = (record.artifact for record in second if record.HasField("artifact"))
    entries = {entry.path: Path(entry.local_path) for entry in report.manifest.contents}
    assert set(entries) == {"report.html", "report.json", "report.md"}
    assert all(path.resolve().parent == (folder / "report").resolve() for path in entries.values())


def settings_of(records: list) -> dict:
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for record in records
        for item in record.config.update
        if "." in item.key
    }


def check_mlflow(folder: Path, number: str) -> None:
    client, run = mlflow_run(folder)
    assert (run.info.run_id, run.info.run_name) == (number, "tiny")
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.lr"] == "0.003" and run.data.params["name"] == "tiny"
    assert {file.path for file in client.list_artifacts(number, "pictures")} == {
        "pictures/step_000003.jpg",
        "pictures/step_000006.jpg",
    }
    assert len(client.list_artifacts(number, "report")) == 3
    assert Path(run.info.artifact_uri).is_relative_to(folder.parent.absolute())


@pytest.mark.parametrize("name", EVERY)
def test_no_picture_leaves_without_pictures(tiny, name):
    """``train.pictures`` 0: the report's text alone, no image and no image's name."""
    needs(name)
    folder = workflows.train(changed(tiny, "train", loggers=(name,), pictures=0, max_steps=2))
    text = (folder / "report" / "report.md").read_text()
    assert "mIoU" in text and "s00" not in text and "s01" not in text
    if name == "tensorboard":
        assert not events(folder).Tags()["images"]
    elif name == "wandb":
        records = list(wandb_records(wandb_files(folder)[0]))
        (report,) = (record.artifact for record in records if record.HasField("artifact"))
        assert [entry.path for entry in report.manifest.contents] == ["report.md"]
        (files,) = folder.glob("wandb/offline-run-*/files")
        assert {path.name for path in files.rglob("*")} <= {"requirements.txt"}
    elif name == "mlflow":
        client, run = mlflow_run(folder)
        found = [
            file.path
            for root in client.list_artifacts(run.info.run_id)
            for file in client.list_artifacts(run.info.run_id, root.path)
        ]
        assert found == ["report/report.md"]


def test_weights_are_those_of_a_run_without_loggers(tiny):
    """Bit for bit, average and optimizer included."""
    names = tuple(name for name in EVERY if tools.importlib.util.find_spec(name) or name == "csv")
    ends = []
    for run, loggers in (("without", ()), ("with", names)):
        config = changed(tiny, "train", loggers=loggers, log_every=1)
        folder = workflows.train(dataclasses.replace(config, name=run))
        ends.append((load_checkpoint(folder / "last.ckpt"), folder / "best.safetensors"))
    (one, weights), (two, same) = ends
    assert weights.read_bytes() == same.read_bytes()
    assert one["state"] == two["state"]
    for part in ("model", "ema"):
        assert all(torch.equal(two[part][key], value) for key, value in one[part].items())
    for a, b in zip(one["optimizer"]["state"].values(), two["optimizer"]["state"].values()):
        assert all(torch.equal(a[key], b[key]) for key in b)


def test_after_kill_9(folder_data, tmp_path):
    """The process dies without a word; every logged step is there, none twice."""
    pytest.importorskip("tensorboard")
    logged = ("--train.loggers", "tensorboard", "csv", "--train.log-every", "1")
    folder = tmp_path / "shapes_cfn"
    process = kill_after_a_save(
        command(folder_data, tmp_path, *logged), tmp_path, signal.SIGKILL, after=4
    )
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    done = processes.run(*command(folder_data, tmp_path, "--resume", *logged))
    assert done.returncode == 0, done.stderr
    check_rows(tensorboard_rows(folder), folder)
    check_rows(csv_rows(folder), folder)


@pytest.mark.parametrize("moment", ["half a row", "aside", "aside and half a file"])
def test_a_csv_file_that_a_killed_process_left(tmp_path, moment):
    folder = tmp_path / "csv"
    folder.mkdir()
    text = "step,train/loss,val/loss\r\n2,0.5,\r\n4,0.25,\r\n4,,0.125\r\n6,0.1,\r\n"
    name = "metrics.csv" if moment == "half a row" else "before.csv"
    (folder / name).write_bytes((text + "80,0.0" * (moment == "half a row")).encode())
    if moment == "aside and half a file":
        (folder / "metrics.csv").write_text("step,train/loss,val/loss\n2,0.")
    logger = tools._csv(None, tmp_path, 4, "")
    logger.log_metrics({"train/loss": 0.0625}, 6)
    assert csv_rows(tmp_path) == [
        ("train/loss", 2, 0.5),
        ("train/loss", 4, 0.25),
        ("val/loss", 4, 0.125),
        ("train/loss", 6, 0.0625),
    ]
    assert [path.name for path in folder.iterdir()] == ["metrics.csv"]


def test_a_logger_that_fails_is_left_out(tiny, monkeypatch, capsys):
    """One line, and the run ends as any other; the other logger has everything."""
    pytest.importorskip("tensorboard")

    def full(self, metrics, step=None):
        raise OSError("No space left on device\nand more")

    monkeypatch.setattr("lightning.fabric.loggers.CSVLogger.log_metrics", full)
    config = changed(tiny, "train", loggers=("csv", "tensorboard"), log_every=1)
    folder = workflows.train(config)
    said = "train.loggers csv: No space left on device; the run goes on without it"
    assert capsys.readouterr().out.count(said) == 1
    check_rows(tensorboard_rows(folder), folder)


def test_an_unknown_name_and_a_missing_package(tiny, monkeypatch):
    wrong = changed(tiny, "train", loggers=("tensorbord",))
    with pytest.raises(UserError, match=r"loggers is \('tensorbord',\); expected a tuple of names"):
        workflows.train(wrong)
    with pytest.raises(UserError, match="expected a tuple of names among tensorboard, csv, wandb"):
        workflows.train(changed(tiny, "train", loggers="csv"))
    (Path(tiny.runs).parent / "wandb").mkdir()  # W&B's own folder is no package
    monkeypatch.syspath_prepend(str(Path(tiny.runs).parent))
    monkeypatch.setattr("sys.path", [str(Path(tiny.runs).parent)])
    monkeypatch.delitem(__import__("sys").modules, "wandb", raising=False)
    with pytest.raises(
        UserError, match=r'wandb needs more packages: pip install "cfnseg\[wandb\]"'
    ):
        tools.Loggers(changed(tiny, "train", loggers=("wandb",)), main=True)


def refused(config) -> str:
    """The line with which a run is refused; nothing was trained."""
    with pytest.raises(UserError) as error:
        workflows.train(config)
    assert "\n" not in str(error.value)
    assert not (Path(config.runs) / config.name / "last.ckpt").exists()
    return str(error.value)


def test_no_network_and_no_account(folder_data, tmp_path):
    """In processes of their own, as W&B reads its variables once."""
    needs("wandb")
    nobody = {"WANDB_MODE": "online"}
    nowhere = {
        **nobody,
        "WANDB_API_KEY": "a" * 40,
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_INIT_TIMEOUT": "1",
    }
    arguments = command(folder_data, tmp_path, "--train.loggers", "wandb")
    for env, expected in ((nobody, "No API key configured. Use `wandb login`"), (nowhere, "")):
        done = processes.run(*arguments, env=env)
        assert done.returncode == 1
        assert f"error: train.loggers wandb: {expected}" in done.stderr
        assert "Traceback" not in done.stderr and "aaaa" not in done.stderr
    assert not (tmp_path / "shapes_cfn" / "last.ckpt").exists()


def test_no_server(tiny, monkeypatch):
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = refused(changed(tiny, "train", loggers=("mlflow",)))
    assert said.startswith("train.loggers mlflow: API request to http://127.0.0.1:9/")


@pytest.mark.parametrize("name", ["tensorboard", "csv"])
def test_a_folder_that_cannot_be_written(tiny, name):
    needs(name)
    folder = Path(tiny.runs) / "tiny"
    folder.mkdir(parents=True)
    (folder / name).write_text("a file")
    assert f"train.loggers {name}: " in refused(changed(tiny, "train", loggers=(name,)))


def test_other_processes_have_no_logger(tiny):
    found = tools.Loggers(changed(tiny, "train", loggers=("csv",)), main=False)
    found.start(0, print)
    found.report(Path(tiny.runs) / "tiny" / "report", 3)  # which another host has
    assert not found.active and not (Path(tiny.runs) / "tiny").exists()


def test_class_names_that_mlflow_does_not_take():
    seen = {}

    class Logger:
        def log_metrics(self, values, step):
            seen.update(values)

    values = {"val_iou/天": 0.5, "val_iou/地": 0.25, "val_iou/road side": 1.0}
    tools._numbers("mlflow", Logger(), 3, values | {"val/loss": float("nan")})
    assert seen == {"val_iou/_ 0": 0.5, "val_iou/_ 1": 0.25, "val_iou/road side": 1.0}
    tools._numbers("csv", Logger(), 3, values)
    assert seen["val_iou/天"] == 0.5

"""cfnseg COMMAND: the table, recipes by name, exit codes, completion."""

import functools
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from cfnseg import cli, commands, shipped
from cfnseg.cli import BENCH, COMMANDS, call, dispatch, function_of, split_recipe
from cfnseg.config import Model, load_config
from cfnseg.data.formats.shapes import ShapesDataset
from cfnseg.data.labels import ClassNames
from cfnseg.errors import UserError
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from cfnseg.streams import own_command
from tests.conftest import ENCODER, REPO, run_tool


def cfnseg(*argv):
    return dispatch(COMMANDS, "cfnseg", [str(word) for word in argv])


@pytest.fixture
def handlers():
    """The handlers of signals that a training command replaces."""
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.fixture
def trained(monkeypatch, tmp_path, handlers):
    """The configs that the training commands would train."""
    configs = []
    monkeypatch.setattr(
        "cfnseg.workflows.train",
        lambda config, resume: configs.append((config, resume)) or tmp_path,
    )
    return configs


IMPORTED = """
import sys
from cfnseg.cli import main
sys.argv = ["cfnseg", *{}]
try:
    main()
finally:
    assert not {} & set(sys.modules)
"""


def test_help_imports_nothing_heavy():
    code = IMPORTED.format(["--help"], {"torch", "tyro", "numpy", "rich"})
    before = os.times()
    done = run_tool("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.times().children_user - before.children_user < 0.5
    for name, entry in COMMANDS.items():
        assert bool(re.search(rf"^  {name} +\S", done.stdout, re.M)) == (
            isinstance(entry, dict) or bool(entry.about)
        )
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_help_on_a_command_imports_no_torch():
    for words in (["train", "--help"], ["eval", "--help"], ["infer", "--help"], ["recipes"]):
        done = run_tool("-c", IMPORTED.format(words, {"torch"}))
        assert (done.returncode, done.stderr) == (0, ""), words
        assert "cfn" in done.stdout


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([], "which command"),
        (["trian"], "command 'trian' is unknown; did you mean train?"),
        (["bench"], "which command"),
        (["bench", "op"], "did you mean ops"),
        (["train", "voc_cf"], "recipe 'voc_cf' is unknown; did you mean voc_cfn"),
        (["train"], "which config?"),
        (["train", "cifar10_cfn"], "train it with tools/train_cls.py or cfnseg classify"),
        (["classify", "voc_cfn"], "train it with tools/train_seg.py or cfnseg train"),
        (["eval"], "either a weights file or"),
        (["eval_seg"], "command 'eval_seg' is unknown"),
        (["recipes", "--copy", "voc", "."], "did you mean voc_cfn"),
        (["recipes", "--copy", "voc_cfn", "nowhere"], "nowhere is no folder"),
    ],
)
def test_usage(argv, part, handlers):
    with pytest.raises(UserError, match=re.escape(part)) as caught:
        cfnseg(*argv)
    assert caught.value.code == 2


def test_the_commands_functions_exist_and_each_is_documented():
    for entry in (*COMMANDS.values(), *BENCH.values()):
        if not isinstance(entry, dict):
            function = function_of(entry)
            whole = function.func if isinstance(function, functools.partial) else function
            assert inspect.getdoc(whole), entry
            for name in inspect.signature(whole).parameters:
                assert name in ("config", "height") or f"{name}:" in whole.__doc__, (
                    entry.target,
                    name,
                )


def test_module_and_version():
    done = run_tool("-m", "cfnseg", "chek")
    assert done.returncode == 2 and done.stderr.startswith(
        "error: command 'chek' is unknown; did you mean check?"
    )
    assert "Traceback" not in done.stderr
    done = run_tool("-m", "cfnseg", "--version")
    assert re.fullmatch(r"cfnseg \d+\.\d+\.\d+\n", done.stdout) and done.returncode == 0


def test_check_has_no_options(capsys):
    with pytest.raises(SystemExit) as ended:
        cfnseg("check", "--help")
    assert ended.value.code == 0 and "Exit code: 0 all is right" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(SystemExit) as ended:
        cfnseg("check", "--fast")
    assert ended.value.code == 2


def test_train_takes_a_name_a_path_and_settings(trained, tmp_path):
    cfnseg("train", "voc_cfn", "--optim.lr", "0.5", "--data.flip", "False", "--resume")
    cfnseg("train", REPO / "configs" / "voc_cfn.py")
    cfnseg("classify", "cifar10_cfn_short", "--name", "mine")
    (one, resumed), (two, fresh), (three, _) = trained
    assert (one.optim.lr, one.data.flip, one.name, resumed) == (0.5, False, "voc_cfn", True)
    assert two == load_config("voc_cfn") and not fresh
    assert (three.name, three.data.name) == ("mine", "cifar10")
    shutil.copy(REPO / "configs" / "voc_cfn.py", tmp_path / "other.py")
    assert load_config(tmp_path / "other.py").name == "other"


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--train.batch", "auto"], (16, 0)),
        (["--train.batch=auto"], (16, 0)),
        (["--train.batch", "4"], (4, 1)),
        (["--train.batch", "6", "--train.accumulate", "3"], (6, 3)),
    ],
)
def test_batch_auto_keeps_the_batch_of_the_file(words, expected, trained):
    for recipe in ("voc_cfn", str(REPO / "configs/voc_cfn.py")):
        cfnseg("train", recipe, *words)
        config, _ = trained.pop()
        assert (config.train.batch, config.train.accumulate) == expected


def test_the_old_name_of_fix(capsys):
    assert split_recipe(["shapes_cfn", "--mend=x", "--out", "--mend"])[1] == [
        "--fix=x",
        "--out",
        "--fix",
    ]
    assert capsys.readouterr().err.count("--mend is now --fix") == 1
    assert split_recipe(["shapes_cfn", "--data.root", "a b", ""])[1] == ["--data.root", "a b", ""]


@pytest.mark.parametrize(
    "script, words",
    [
        ("/usr/bin/cfnseg", ["cfnseg"]),
        ("C/cfnseg.exe", ["cfnseg"]),
        ("/x/cfnseg/__main__.py", ["python", "-m", "cfnseg"]),
        ("tools/train_seg.py", ["python", "tools/train_seg.py"]),
    ],
)
def test_the_command_that_starts_again(monkeypatch, script, words):
    monkeypatch.setattr(sys, "argv", [script, "a b"])
    assert own_command() == [*words, "a b"]


def test_recipes(capsys):
    cfnseg("recipes")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(
        p.stem for p in (REPO / "configs").glob("*.py")
    )
    assert all(len(line) < 100 and len(line.split()) > 3 for line in lines)


def test_every_copied_recipe_works_alone(tmp_path, monkeypatch):
    for name, path in shipped.recipes().items():
        folder = tmp_path / name
        folder.mkdir()
        cfnseg("recipes", "--copy", name, folder)
        assert (folder / path.name).read_bytes() == path.read_bytes()
        if not name.startswith("ablation_"):
            monkeypatch.chdir(folder)
            assert load_config(folder / path.name) == load_config(path)
    (folder / path.name).write_text("mine")
    with pytest.raises(UserError, match=f"{path.name} exists and was not overwritten") as caught:
        cfnseg("recipes", "--copy", name, folder)
    assert caught.value.code == 2 and (folder / path.name).read_text() == "mine"


def test_a_file_comes_before_a_recipe_only_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc_cfn.py").write_text(
        "from cfnseg.config import *\nconfig = Config(train=Train(seed=9))\n"
    )
    assert load_config("voc_cfn").train.seed == 0
    assert load_config("voc_cfn.py").train.seed == 9
    with pytest.raises(UserError, match=r"no config file shapes_cfn\.py"):
        load_config("shapes_cfn.py")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small model of the built-in scenes, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "shapes_cfn.safetensors"
    settings, labels = (
        Model(encoder=ENCODER, encoder_weights=None, width=8),
        ShapesDataset("val").labels,
    )
    save_weights(path, build_model(settings, len(labels)), settings, labels, {"data": "shapes"})
    return path


def test_the_small_model_of_the_wheel(small, tmp_path, monkeypatch, capsys):
    import numpy as np
    from PIL import Image

    import cfnseg as public

    known = {tmp_path / "camvid_cfn.safetensors": "CamVid", small: "the built-in scenes"}
    monkeypatch.setattr(shipped, "WEIGHTS", known)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    assert (
        cfnseg("infer", tmp_path / "photo.png", "--out", tmp_path / "out", "--device", "cpu") == 0
    )
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(
        "no --weights: shapes_cfn.safetensors is used, trained on the built-in scenes; "
    )
    assert (tmp_path / "out" / "photo_mask.png").is_file()
    assert public.load().labels.names == public.load(small).labels.names
    assert (
        cfnseg(
            "infer",
            tmp_path / "no.png",
            "--weights",
            small,
            "--out",
            tmp_path / "out",
            "--device",
            "cpu",
        )
        == 1
    )
    captured = capsys.readouterr()
    assert "no --weights" not in captured.out and "no.png" in captured.err


def test_weights_that_ship_are_found_in_order():
    first, second, third = shipped.WEIGHTS
    assert first == REPO / "data" / "weights" / "camvid_cfn.safetensors"
    assert second == REPO / "cfnseg" / "weights" / "shapes_cfn.safetensors"
    assert third == REPO / "data" / "weights" / "shapes_cfn.safetensors"


def test_eval_scores_what_the_file_holds(monkeypatch):
    """The command passes no level; tools/eval_seg.py and eval_cls.py pass theirs."""
    levels = []
    monkeypatch.setattr(
        "cfnseg.workflows.score_weights", lambda *args: levels.append((args[3], args[-1]))
    )
    cfnseg("eval", "w")
    call(COMMANDS["eval_seg"], "eval_seg.py", ["w", "--split", "val"])
    call(COMMANDS["eval_cls"], "eval_cls.py", ["w", "--root", "x"])
    assert levels == [("", ""), ("val", "pixel"), ("", "image")]


def test_eval_knows_classification_by_the_file(tmp_path):
    path, settings = (
        tmp_path / "c.safetensors",
        Model(level="image", encoder=ENCODER, encoder_weights=None, width=8),
    )
    save_weights(
        path,
        build_model(settings, 3),
        settings,
        ClassNames("abc"),
        {"data": "image_folder", "crop": [32, 32]},
    )
    with pytest.raises(UserError, match=r"nowhere"):
        cfnseg("eval", path, "--root", tmp_path / "nowhere")
    for more in (["--window", "64", "64"], ["--explain-metric"]):
        with pytest.raises(UserError, match="are for segmentation") as caught:
            cfnseg("eval", path, *more)
        assert caught.value.code == 2


def test_every_tool_is_three_lines():
    for path in (REPO / "tools").glob("*.py"):
        body = re.sub(r'^""".*?"""\n', "", path.read_text(), flags=re.S)
        main = r'if __name__ == "__main__":\n    run\("\w+"(, "\w+")?\)\n'
        assert re.fullmatch(rf"\nfrom cfnseg\.cli import run\n\n{main}", body), path


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, capsys):
    with pytest.raises(SystemExit) as ended:
        cfnseg("completion", shell)
    script = capsys.readouterr().out
    assert not ended.value.code and "cfnseg" in script
    for word in ("train", "--optim.lr", "--resume", "--predictions", "--competition"):
        assert word.lstrip("-") in script, word


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_completion_in_bash(tmp_path):
    script = tmp_path / "complete.sh"
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    with script.open("w") as file:
        subprocess.run(
            [sys.executable, "-m", "cfnseg", "completion", "bash"],
            stdout=file,
            env=env,
            check=True,
            timeout=60,
        )
    done = subprocess.run(
        ["bash", "-c", f"source {script} && complete -p cfnseg"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cfnseg" in done.stdout


def test_the_entry_point():
    import tomllib

    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"cfnseg": "cfnseg.cli:main"}
    assert callable(cli.main) and commands

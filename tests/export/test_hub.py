"""cfnseg push against a server that answers as the hub does, and back by hf:user/name."""

import json
import traceback
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from cfnseg.cli import COMMANDS, dispatch
from cfnseg.config import Model
from cfnseg.data.formats.shapes import ShapesDataset
from cfnseg.errors import UserError
from cfnseg.export.hub import push_to_hub
from cfnseg.models.build import build_model
from cfnseg.models.weights import load, save_weights
from tests.conftest import ENCODER
from tests.export.hub_server import Repository, serving

FILE = "model.safetensors"
SECRET = "hf_SECRETsecretSECRET"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small model of the built-in scenes, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    labels = ShapesDataset("val").labels
    score = {"data": "shapes", "split": "val", "images": 100, "miou": 0.5}
    save_weights(path, build_model(settings, len(labels)), settings, labels, score)
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path / "cache") as hub:
        hub.tokens[SECRET] = "write"
        monkeypatch.setenv("HF_TOKEN", SECRET)
        yield hub


def cfnseg(*argv):
    return dispatch(COMMANDS, "cfnseg", [str(word) for word in argv])


def message(weights, repo="anna/net", **more):
    """The one line of the error of a push."""
    with pytest.raises(UserError) as caught:
        push_to_hub(weights, repo, **more)
    text = str(caught.value)
    assert "\n" not in text and SECRET not in "".join(traceback.format_exception(caught.value))
    assert text.startswith(f"{weights} was not pushed to {repo}: ")
    return text.partition(f"{repo}: ")[2]


@pytest.mark.parametrize("lfs", [False, True])
def test_there_and_back(hub, weights, tmp_path, capfd, monkeypatch, lfs):
    hub.lfs, hub.echo = lfs, True
    monkeypatch.chdir(tmp_path)
    assert not cfnseg("push", weights, "anna/net", "--license", "MIT", "--dry-run", "page")
    assert not hub.asked
    assert not cfnseg("push", weights, "anna/net", "--license", "MIT")
    out, err = capfd.readouterr()
    assert f"{hub.url}/anna/net\nuse them: cfnseg infer photo.jpg --weights hf:anna/net\n" in out
    files = hub.repositories["anna/net"].revisions["main"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    assert files[FILE] == weights.read_bytes() and files.keys() == {FILE, "README.md"}
    assert ModelCard(files["README.md"].decode()).data.license == "mit"
    assert not hub.repositories["anna/net"].private
    own, found = (load(name).model.state_dict() for name in (weights, "hf:anna/net"))
    assert own.keys() == found.keys() and all(torch.equal(own[k], found[k]) for k in own)
    assert SECRET not in out + err + files["README.md"].decode()


def test_the_commands_take_its_name(hub, weights, folder_data, tmp_path, monkeypatch, capsys):
    push_to_hub(weights, "hf:anna/net")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40)).save("photo.png")
    assert cfnseg("infer", "photo.png", "--weights", "hf:anna/net", "--device", "cpu") == 0
    assert "weights: hf:anna/net (" in capsys.readouterr().out
    assert (tmp_path / "out" / "photo_mask.png").is_file()
    root = ["--dataset", "folder", "--root", folder_data, "--workers", 0, "--device", "cpu"]
    cfnseg("eval", "hf:anna/net", *root, "--no-pictures")
    report = json.loads((tmp_path / "net_val" / "report.json").read_text())
    assert report["num_images"] == 5 and report["facts"]["weights"] == "hf:anna/net"


def test_a_second_push_replaces_both_files_and_keeps_the_others(hub, weights):
    old = {FILE: b"old", "README.md": b"old", "notes.txt": b"kept"}
    hub.repositories["anna/net"] = Repository({"main": old})
    push_to_hub(weights, "anna/net")
    files = hub.repositories["anna/net"].revisions["main"]
    assert files["notes.txt"] == b"kept" and files[FILE] == weights.read_bytes()


def test_private(hub, weights):
    push_to_hub(weights, "anna/own", private=True)
    push_to_hub(weights, "anna/own", private=True)
    assert hub.repositories["anna/own"].private
    hub.repositories["anna/net"] = Repository()
    assert "it exists and is public; make it private at http" in message(weights, private=True)
    assert not hub.repositories["anna/net"].revisions["main"]


def test_who_may_push(hub, weights, monkeypatch, capfd, caplog):
    monkeypatch.delenv("HF_TOKEN")
    assert message(weights).startswith("you are not logged in; hf auth login, or HF_TOKEN")
    assert not hub.asked
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.echo = True
    hub.tokens[SECRET] = "read"
    found = message(weights, "bob/net")
    assert found.startswith("127.0.0.1") and "the token needs the permission to write" in found
    assert "You don't have the rights to create a model" in found
    hub.tokens.clear()
    assert "refused the token (Invalid username or password" in message(weights)
    assert SECRET not in "".join([*capfd.readouterr(), caplog.text])
    assert not hub.repositories


def test_no_connection(hub, weights, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert message(weights) == "HF_HUB_OFFLINE is set, which forbids to connect"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.shutdown()
    hub.server_close()
    assert "could not be reached" in message(weights)


def test_what_the_hub_refuses(hub, weights):
    hub.refuses = '"license" must be one of [apache-2.0, mit]'
    found = message(weights, license="mine")
    assert "refused the card (Invalid metadata in README.md. - " + f"{hub.refuses[:9]}" in found
    assert not hub.repositories["anna/net"].revisions["main"]


def test_an_upload_that_breaks_off_changes_nothing(hub, weights, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.lfs = True
    hub.ends["/store"] = [1] * 99
    assert "answered 500 (the store is full)" in message(weights)
    assert not hub.repositories["anna/net"].revisions["main"]


@pytest.mark.parametrize("repo", ["net", "anna/net/x", "anna/net@v1", "a b/c", "https://x/a/b"])
def test_names_that_are_none(hub, weights, repo):
    with pytest.raises(UserError, match="expected user/name") as caught:
        push_to_hub(weights, repo)
    assert caught.value.code == 2 and not hub.asked


def test_weights_that_are_none(hub, tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        push_to_hub(tmp_path / "w.safetensors", "anna/net")
    with pytest.raises(UserError, match="hf:bob/net is on the hub; push takes a file") as caught:
        push_to_hub("hf:bob/net", "anna/net")
    assert caught.value.code == 2 and not hub.asked


def test_a_path_in_the_header_is_named(weights, tmp_path, capsys):
    loaded = load(weights)
    settings = replace(loaded.settings, encoder_weights="/home/anna/start.pth")
    save_weights(tmp_path / "w.safetensors", loaded.model, settings, loaded.labels, {})
    cfnseg("push", tmp_path / "w.safetensors", "anna/net", "--dry-run", tmp_path / "page")
    assert "header names /home/anna/start.pth, which others will read" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written(weights, tmp_path):
    (tmp_path / "page").write_text("a file")
    with pytest.raises(UserError, match="could not be written"):
        cfnseg("push", weights, "anna/net", "--dry-run", tmp_path / "page")

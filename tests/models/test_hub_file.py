"""hf:user/name against a server that answers as the hub does: files, faults, caches, tokens."""

import traceback

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

import cfnseg
from cfnseg.config import Model
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError
from cfnseg.models.build import build_model
from cfnseg.models.hub_file import HubName, beside, hub_file, is_hub_name, parse_hub_name
from cfnseg.models.weights import load, save_weights, start_from
from tests.conftest import ENCODER
from tests.export.hub_server import Repository, serving

LABELS = LabelMap([Label(0, "sky", (1, 2, 3)), Label(1, "ground", (4, 5, 6))])
CFN = Model(encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 2))
FILE = "model.safetensors"
SECRET = "hf_SECRETsecretSECRET"


def written(path, settings):
    """The bytes of a weights file with random weights."""
    save_weights(path, build_model(settings, 2), settings, LABELS, {"data": "folder"})
    return path.read_bytes()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return written(tmp_path_factory.mktemp("weights") / "w.safetensors", CFN)


@pytest.fixture
def hub(monkeypatch, tmp_path, weights):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    with serving(monkeypatch, tmp_path / "cache") as hub:
        hub.repositories["anna/net"] = Repository({"main": {FILE: weights, "README.md": b"x"}})
        yield hub


def message(name="hf:anna/net", code=1):
    """The one line of the error on a name."""
    with pytest.raises(UserError) as caught:
        load(name)
    assert caught.value.code == code and "\n" not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


NAMES = {
    "hf:anna/net": ("anna/net", None, None),
    "hf:an-na/n.e_t@v1": ("an-na/n.e_t", "v1", None),
    "hf:anna/net/a/b.safetensors": ("anna/net", None, "a/b.safetensors"),
    "hf:anna/net@v1/b.safetensors": ("anna/net", "v1", "b.safetensors"),
    "hf:anna/net@refs/pr/7/b.safetensors": ("anna/net", "refs/pr/7", "b.safetensors"),
    "hf:anna/net@my%2Fbranch": ("anna/net", "my/branch", None),
    "hf://anna/net": ("anna/net", None, None),
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert parse_hub_name(name) == NAMES[name]


@pytest.mark.parametrize("name", ["hf:", "hf:net", "hf:anna/net/x.bin", "hf:a/b@", "hf:a b/c"])
def test_other_names(name):
    with pytest.raises(UserError, match="expected hf:user/name") as caught:
        parse_hub_name(name)
    assert caught.value.code == 2


WORD = st.text("abcXYZ019_.-", min_size=1, max_size=9)


@given(WORD, WORD, st.none() | WORD, st.none() | WORD)
def test_a_name_is_its_text(user, name, revision, file):
    whole = HubName(f"{user}/{name}", revision, file and f"{file}.safetensors")
    assert is_hub_name(str(whole)) and parse_hub_name(str(whole)) == whole


def test_the_files_tensors_and_one_download(hub, weights, tmp_path):
    (tmp_path / "own.safetensors").write_bytes(weights)
    own = load(tmp_path / "own.safetensors")
    for _ in range(2):
        found = load("hf:anna/net")
        assert found.settings == own.settings and found.labels == own.labels
        theirs = found.model.state_dict()
        for name, tensor in own.model.state_dict().items():
            assert torch.equal(tensor, theirs[name])
    path = f"/anna/net/resolve/main/{FILE}"
    kinds = [method for method, asked, _ in hub.asked if asked == path]
    assert kinds == ["GET", "HEAD", "GET", "HEAD"]  # header, download; then a look for news


def test_a_revision(hub, weights, tmp_path):
    other = written(tmp_path / "w.safetensors", CFN)
    hub.repositories["anna/net"].revisions["v1"] = {FILE: other}
    assert hub_file("hf:anna/net@v1").read_bytes() == other
    assert hub_file("hf:anna/net").read_bytes() == weights
    assert "hf:anna/net@v2: no such revision; http://127.0.0.1" in message("hf:anna/net@v2")


def test_without_the_usual_file(hub, weights):
    files = hub.repositories["anna/net"].revisions["main"] = {"best.safetensors": weights, "x": b""}
    assert hub_file("hf:anna/net").name == "best.safetensors"
    files["large.safetensors"] = weights
    assert message() == (
        "hf:anna/net has no model.safetensors; there is hf:anna/net/best.safetensors, "
        "hf:anna/net/large.safetensors"
    )
    assert hub_file("hf:anna/net/large.safetensors").name == "large.safetensors"
    assert "has no a.safetensors; there is" in message("hf:anna/net/a.safetensors")
    files.clear()
    assert message() == "hf:anna/net has no model.safetensors, and no other .safetensors file"


def test_a_file_of_another_program_is_not_downloaded(hub):
    big = save({"x": torch.zeros(1 << 19)}, {"format": "pt"})
    hub.repositories["bob/bert"] = Repository({"main": {FILE: big}})
    assert message("hf:bob/bert") == (
        "hf:bob/bert/model.safetensors has no cfnseg header; it is not a file that cfnseg trained"
    )
    assert [method for method, *_ in hub.asked] == ["GET"]
    hub.repositories["bob/bert"].revisions["main"][FILE] = b"version https://git-lfs" * 9
    assert "corrupt or no safetensors file" in message("hf:bob/bert")


def test_who_may_read(hub, weights, monkeypatch, capfd, caplog):
    login = "log in (hf auth login, or HF_TOKEN)"
    assert "no such repository on 127.0.0.1" in message("hf:anna/nte")
    assert login in message("hf:anna/nte")
    hub.repositories["anna/net"].private = True
    assert login in message()
    monkeypatch.setenv("HF_TOKEN", SECRET)
    for hub.echo in (False, True):
        assert "refused the token" in message()
    hub.tokens[SECRET] = "read"
    assert "or one that your token may not read" in message("hf:anna/nte")
    assert hub_file("hf:anna/net").read_bytes() == weights
    hub.repositories["bob/gated"] = Repository(gated=True)
    assert "its owner grants access on request: ask at http://127" in message("hf:bob/gated")
    hub.repositories["bob/ill"] = Repository()
    hub.status["bob/ill"] = 503
    assert "answered 503 (out of order" in message("hf:bob/ill")
    assert SECRET in str(hub.asked) and SECRET not in "".join([*capfd.readouterr(), caplog.text])


@pytest.mark.parametrize("token", ["hf_SECRET\nsecretSECRET", "SECRET\x07secret", "SECRÉT"])
def test_a_token_that_no_header_can_hold(hub, monkeypatch, token, capfd):
    monkeypatch.setenv("HF_TOKEN", token)
    assert "SECR" not in message("hf:anna/net") and "SECR" not in "".join(capfd.readouterr())


def test_no_connection(hub, weights):
    cached = hub_file("hf:anna/net")
    hub.shutdown()
    hub.server_close()
    assert hub_file("hf:anna/net") == cached
    found = message("hf:anna/other")
    assert found.startswith("hf:anna/other: 127.0.0.1:") and "could not be reached, or" in found


def test_offline(hub, weights, monkeypatch):
    hub.repositories["anna/single"] = Repository({"main": {"best.safetensors": weights}})
    cached = [hub_file(name) for name in ("hf:anna/net", "hf:anna/single")]
    hub.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert [hub_file(name) for name in ("hf:anna/net", "hf:anna/single")] == cached
    offline = "HF_HUB_OFFLINE is set, which forbids to connect"
    for name in ("hf:anna/other", "hf:anna/net@v1", "hf:anna/net/a.safetensors"):
        assert message(name) == f"{name}: not in the cache, and {offline}"
    assert not hub.asked


def test_a_line_that_breaks_is_continued(hub, weights, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.ends[f"/anna/net/resolve/main/{FILE}"] = [100_000]
    assert hub_file("hf:anna/net").read_bytes() == weights
    assert hub.starts == [0, 100_000]
    hub.repositories["anna/late"] = Repository({"main": {FILE: weights}})
    hub.ends["/anna/late/resolve/main/" + FILE] = [1000] + [0] * 20
    found = message("hf:anna/late")
    assert found.startswith("hf:anna/late: 127.0.0.1:") and "or the transfer broke off (" in found
    hub.ends.clear()
    assert hub_file("hf:anna/late").read_bytes() == weights and load("hf:anna/late")


def test_a_folder_that_cannot_be_written(hub, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert "hf:anna/net: " in message()


def test_the_network_alone(hub, weights, tmp_path):
    (tmp_path / "own.safetensors").write_bytes(weights)
    for name in ("anna/net", "anna/net@main", "hf:anna/net", tmp_path / "own.safetensors"):
        net = cfnseg.CFN.from_pretrained(name)
        assert type(net) is cfnseg.CFN and not net.training
    for settings in (
        Model(name="plain", encoder=ENCODER, encoder_weights=None, width=8),
        Model(level="image", encoder=ENCODER, encoder_weights=None, width=8),
    ):
        path = tmp_path / "other.safetensors"
        labels = LABELS if settings.level == "pixel" else cfnseg.data.labels.ClassNames("ab")
        save_weights(path, build_model(settings, 2), settings, labels, {})
        with pytest.raises(UserError, match="no pixel-level CFN .model.name .*cfnseg.load takes"):
            cfnseg.CFN.from_pretrained(path)
    with pytest.raises(UserError, match=r"no weights file runs/x/best\.safetensors$"):
        cfnseg.CFN.from_pretrained("runs/x/best.safetensors")


def test_fine_tuning_starts_from_it(hub):
    net = build_model(CFN, 2)
    assert start_from(net, "hf:anna/net", CFN, LABELS).untouched == []
    theirs = load("hf:anna/net").model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", ["anna/net", "https://huggingface.co/anna/net/tree/main"])
def test_what_was_meant(name):
    with pytest.raises(UserError, match="on the Hugging Face Hub it would be hf:anna/net$"):
        load(name)


def test_where_results_lie(tmp_path):
    assert beside(tmp_path / "w.safetensors") == tmp_path / "w.safetensors"
    assert str(beside("hf:anna/net.v2")) == "net.v2.safetensors"
    assert str(beside("hf:anna/net@v1/a/big.safetensors")) == "net_big.safetensors"

"""Headers of weights files by other programs: the valid ones load, the rest is one line."""

import copy
import json
import struct

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cfnseg.config import Model
from cfnseg.config_values import to_dict
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError
from cfnseg.models import weights
from cfnseg.models.build import build_model
from cfnseg.models.header import read_header
from cfnseg.models.weights import load, save_weights
from tests.conftest import ENCODER

SETTINGS = Model(encoder=ENCODER, encoder_weights=None, width=4, grid=(1, 2), strides=(8, 16))
LABELS = LabelMap([Label(0, "sky", (1, 2, 3)), Label(7, "road", (4, 5, 6))])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Path, header and tensors of a file of ours."""
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    save_weights(
        path,
        build_model(SETTINGS, 2),
        SETTINGS,
        LABELS,
        {"data": "folder", "miou": 0.5, "images": 3, "split": "val"},
    )
    with safe_open(path, "pt") as opened:
        return (
            path,
            json.loads(opened.metadata()["cfnseg"]),
            load_file(path),
        )


def refused(path, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 700


def put(header, where, value):
    """A copy of the header with ``value`` at the place ``where``."""
    changed = copy.deepcopy(header)
    at = changed
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    return changed


WRONG = [
    (("model",), []),
    (("model",), None),
    (("model", "encoder"), 5),
    (("model", "encoder"), "hf-hub:a/b"),
    (("model", "encoder"), "https://a/b"),
    (("model", "encoder"), "/etc/passwd"),
    (("model", "encoder"), "local-dir:/tmp"),
    (("model", "encoder"), ""),
    (("model", "encoder"), "vit_giant_patch14_clip_224"),
    (("model", "width"), -4),
    (("model", "width"), 10**9),
    (("model", "width"), 10**30),
    (("model", "width"), 4.0),
    (("model", "width"), True),
    (("model", "width"), "4"),
    (("model", "grid"), [10**6, 10**6]),
    (("model", "grid"), [1, 2, 3]),
    (("model", "grid"), 3),
    (("model", "strides"), []),
    (("model", "strides"), [16, 8]),
    (("model", "strides"), [8, 16, 10**9]),
    (("model", "strides"), "8 16"),
    (("model", "level"), "voxel"),
    (("model", "name"), "../cfn"),
    (("model", "fusion"), "eval"),
    (("model", "test_scale"), 10**9),
    (("model", "test_scale"), -1),
    (("model", "dropout"), "half"),
    (("model", "kernel"), 9),
    (("model", "level"), "image"),
    (("labels",), []),
    (("labels", "labels"), "sky road"),
    (("labels", "labels"), []),
    (("labels", "labels", 0), [0, "sky"]),
    (("labels", "labels", 0, 0), 256),
    (("labels", "labels", 0, 0), 0.0),
    (("labels", "labels", 0, 0), 7),
    (("labels", "labels", 0, 1), 5),
    (("labels", "labels", 0, 2), [1, 2]),
    (("labels", "labels", 0, 2, 0), 256),
    (("labels", "labels", 0, 2, 0), -1),
    (("labels", "ignore"), 255),
    (("labels", "ignore"), [999]),
    (("labels", "void"), None),
    (("score",), 0.5),
    (("score",), [1]),
    (("score", "data"), 3),
    (("score", "crop"), [10**9, 10**9]),
    (("score", "crop"), 32),
    (("normalisation",), 3),
    (("normalisation",), {}),
    (("normalisation", "mean"), [0.5, 0.5]),
    (("normalisation", "std"), [0, 1, 1]),
    (("normalisation", "std"), ["a", "b", "c"]),
    (("normalisation", "contrast"), "x"),
]


@pytest.mark.parametrize("where, value", WRONG)
def test_a_wrong_value(file, tmp_path, where, value):
    path = tmp_path / "w.safetensors"
    save_file(file[2], path, {"cfnseg": json.dumps(put(file[1], where, value))})
    refused(path, "expected|fit|model|labels|stride")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "3",
        "[]",
        '"x"',
        "{",
        "{" * 5000,
        "[" * 100_000,
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": -Infinity}',
        "9" * 5000,
        '{"model": {}, "model": {}}',
        "{}",
        '{"model": {}}',
    ],
)
def test_a_text_that_is_no_header(file, tmp_path, text):
    path = tmp_path / "w.safetensors"
    save_file(file[2], path, {"cfnseg": text})
    refused(path, "header")


def raw(path, header: bytes, data: bytes = b"", claimed: int | None = None):
    path.write_bytes(struct.pack("<Q", len(header) if claimed is None else claimed) + header + data)
    return path


def test_broken_files(file, tmp_path):
    path = tmp_path / "w.safetensors"
    refused(raw(path, b"{}", claimed=2**31), "corrupt")
    refused(raw(path, b"{}", claimed=2**63), "corrupt")
    refused(raw(path, b'{"__metadata__": {"cfnseg": "\xff\xfe"}}'), "corrupt")
    twice = {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }
    refused(raw(path, json.dumps(twice).encode(), bytes(8)), "corrupt")
    huge = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    refused(raw(path, json.dumps(huge).encode(), bytes(8)), "corrupt")
    path.write_text("weights of mine\n")
    refused(path, "corrupt")
    refused(tmp_path, "is a folder; give a weights file")


def test_tensors_that_do_not_fit(file, tmp_path):
    path, (_, header, tensors) = tmp_path / "w.safetensors", file
    first = "branches.0.1.weight"
    counter = next(k for k in tensors if k.endswith("num_batches_tracked"))
    for changed, message in (
        ({k: v for k, v in tensors.items() if k != first}, f"no tensor {first}"),
        (tensors | {"zzz": torch.zeros(1)}, "a tensor too many, zzz"),
        (tensors | {first: torch.zeros(3, 3)}, f"{first} is \\(3, 3\\)"),
        (tensors | {first: tensors[first].to(torch.int8)}, "torch.int8, the model's"),
        (tensors | {counter: torch.tensor(0.5)}, "torch.float32, the model's"),
    ):
        save_file(changed, path, {"cfnseg": json.dumps(header)})
        refused(path, message)


def test_nothing_is_downloaded_or_made_that_the_file_does_not_hold(file, tmp_path, monkeypatch):
    """A header that names a gigantic backbone is refused by its shapes alone."""
    create = timm.create_model
    real = []

    def watched(name, **kwargs):
        assert not kwargs.get("pretrained")
        model = create(name, **kwargs)
        real.append(any(not p.is_meta for p in model.parameters()))
        return model

    monkeypatch.setattr(timm, "create_model", watched)
    path = tmp_path / "w.safetensors"
    save_file(
        file[2],
        path,
        {"cfnseg": json.dumps(put(file[1], ("model", "encoder"), "resnetv2_50x3_bit"))},
    )
    refused(path, "fit|stride")
    assert real
    assert not any(real)


def places(value, at=()):
    """Every place in a JSON value."""
    yield at
    for key, child in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from places(child, (*at, key))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(0, 300)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["cfn", "unet", "eplf", "image", "sum", ENCODER, "hf-hub:x/y", "../x"]),
    lambda child: (
        st.lists(child, max_size=4) | st.dictionaries(st.text(max_size=5), child, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_value_in_any_place_is_read_as_it_stands_or_refused(file, data):
    header = file[1]
    where = data.draw(st.sampled_from(sorted(places(header), key=str)))
    changed = put(header, where, data.draw(JSON)) if where else data.draw(JSON)
    try:
        read = read_header(json.dumps(changed))
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert (
        json.loads(json.dumps(to_dict(read.settings)))
        == to_dict(Model()) | Model.BEFORE | {"encoder_weights": "timm"} | changed["model"]
    )
    kept = read.labels.to_dict()
    assert kept == {
        k: sorted(v) if k == "ignore" else v for k, v in changed["labels"].items() if k in kept
    }
    assert read.score == changed.get("score", {})
    assert read.normalisation == changed["normalisation"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_what_is_read_loads_or_is_refused(file, tmp_path_factory, data):
    path, header = tmp_path_factory.mktemp("h") / "w.safetensors", file[1]
    where = data.draw(st.sampled_from([p for p in places(header["model"]) if p]))
    save_file(
        file[2], path, {"cfnseg": json.dumps(put(header, ("model", *where), data.draw(JSON)))}
    )
    try:
        loaded = load(path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert all(torch.equal(v, file[2][k]) for k, v in loaded.model.state_dict().items())


def test_the_shipped_weights_load():
    from cfnseg.shipped import WEIGHTS

    assert weights.load(next(iter(WEIGHTS))).labels.names[0] == "sky"

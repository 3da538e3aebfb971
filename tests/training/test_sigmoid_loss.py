"""The loss of sigmoid outputs: torch's own at the image's size, and the total batch's gradient."""

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import TverskyLoss

from cfnseg.config import Config, Loss, Model, check
from cfnseg.errors import UserError
from cfnseg.models.segmenter import Output
from cfnseg.training.loss import image_loss, loss_totals
from cfnseg.training.sigmoid_loss import layer_loss, sigmoid_batch_loss
from tests.training.test_loss import NoWait


def case(images: int = 5, classes: int = 3, seed: int = 0):
    """Logits at stride 4; layers whose ignored pairs are spread unevenly; padded regions."""
    torch.manual_seed(seed)
    pixel, image = torch.randn(images, classes, 6, 9), torch.randn(images, classes)
    layers = torch.randint(0, 2, (images, 23, 34, classes), dtype=torch.uint8)
    for i in range(images):
        layers[i, : 5 * i] = 255
    layers[0, :, :3, 1] = 255  # of one class alone
    region = torch.tensor([[0.1, 0.2, 0.6, 0.9]]).repeat(images, 1)
    return pixel.requires_grad_(), image.requires_grad_(), layers, region


def by_torch(logits, layers):
    """The definition: every logit upsampled, the mean over the pairs that count."""
    up = F.interpolate(logits, scale_factor=4, mode="bilinear")[..., :23, :34]
    target = layers.permute(0, 3, 1, 2)
    counted = target != 255
    return F.binary_cross_entropy_with_logits(up[counted], target[counted].float())


@pytest.mark.parametrize("classes", [1, 3])
def test_it_is_the_binary_cross_entropy_of_upsampled_logits(classes):
    pixel, _, layers, _ = case(classes=max(classes, 2))
    pixel, layers = pixel.detach()[:, :classes].requires_grad_(), layers[..., :classes]
    loss, expected = layer_loss(pixel, layers), by_torch(pixel, layers)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(one, pixel)[0] for one in (loss, expected))
    assert theirs.any()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("parts", [[0, 2, 5], [0, 1, 2, 3, 4, 5]])
def test_the_gradient_of_parts_is_that_of_the_whole(parts):
    pixel, image, layers, region = case()
    settings = Loss(image=0.7)
    whole = sigmoid_batch_loss(
        Output(pixel, image, (pixel * 2,)), layers, settings, side=0.3, region=region
    )
    expected = torch.autograd.grad(whole, (pixel, image))
    totals = loss_totals(layers, region, None)
    assert totals.pixels == (layers != 255).sum()
    losses = [
        sigmoid_batch_loss(
            Output(pixel[a:b], image[a:b], (2 * pixel[a:b],)),
            layers[a:b],
            settings,
            side=0.3,
            region=region[a:b],
            totals=totals,
        )
        for a, b in zip(parts, parts[1:])
    ]
    assert sum(losses).item() == pytest.approx(whole.item(), rel=1e-6)
    for ours, theirs in zip(torch.autograd.grad(sum(losses), (pixel, image)), expected):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_the_image_head_knows_every_class_that_has_a_pixel():
    _, image, layers, _ = case()
    present = ((layers == 1).flatten(1, 2).any(1)).float()
    known = torch.tensor([True, False, False, False, False])  # the others hide more than a fifth
    layers[0] = torch.where(layers[0] == 255, 0, layers[0])
    expected = F.binary_cross_entropy_with_logits(image[known], present[known])
    assert image_loss(image, layers).item() == pytest.approx(expected.item(), rel=1e-6)


def test_nothing_counted_is_zero_with_zero_gradient():
    pixel, image, layers, region = case()
    loss = sigmoid_batch_loss(
        Output(pixel, image), torch.full_like(layers, 255), Loss(image=1.0), region=region
    )
    loss.backward()
    assert loss.item() == 0 and not pixel.grad.any() and not image.grad.any()


def test_it_never_waits_for_the_device_and_is_float32_under_autocast():
    pixel, image, layers, region = case()
    with NoWait():
        sigmoid_batch_loss(Output(pixel, image), layers, Loss(), region=region).backward()
    plain = pixel.grad.clone()
    pixel.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        loss = sigmoid_batch_loss(Output(pixel, image), layers, Loss(), region=region)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.equal(plain, pixel.grad)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_the_gradient_of_16_bit_logits_is_the_rounded_one(kind):
    pixel, _, layers, _ = case()
    own = pixel.detach().to(kind).requires_grad_()
    (ours,) = torch.autograd.grad(layer_loss(own, layers), own)
    (exact,) = torch.autograd.grad(by_torch(own.float(), layers), own)
    assert ours.dtype == kind
    torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize("name", ["dice", "tversky"])
def test_overlap_terms_equal_the_library_on_full_logits(name):
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 6, 9, requires_grad=True)
    layers = (torch.rand(3, 23, 34, 4) < 0.3).to(torch.uint8)
    layers[torch.rand(3, 23, 34) < 0.2] = 255
    layers[..., 3] = torch.where(layers[..., 3] == 1, 0, layers[..., 3])  # a class in no image
    full = F.interpolate(logits, scale_factor=4, mode="bilinear")[..., :23, :34]
    share = {"alpha": 0.3, "beta": 0.7} if name == "tversky" else {"alpha": 0.5, "beta": 0.5}
    oracle = TverskyLoss("multilabel", ignore_index=255, **share)
    expected = oracle(full, layers.permute(0, 3, 1, 2).float())
    output = Output(logits, torch.zeros(3, 4))
    found = sigmoid_batch_loss(output, layers, Loss(terms=(name,), image=0.0))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    both = sigmoid_batch_loss(output, layers, Loss(terms=("ce:2", name), image=0.0))
    torch.testing.assert_close(
        both, 2 * layer_loss(logits, layers) + expected, rtol=1e-5, atol=1e-7
    )
    gradients = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("terms", [("focal",), ("ce", "lovasz")])
def test_terms_of_softmax_alone(terms):
    with pytest.raises(UserError, match=r"loss\.terms"):
        check(Config(model=Model(output="sigmoid"), loss=Loss(terms=terms), name="x"))

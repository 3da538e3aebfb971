"""The total batch's loss: hardest pixels, left-out images, any processes, no device wait."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from cfnseg.config import Loss
from cfnseg.models.segmenter import Output
from cfnseg.training import loss as module
from cfnseg.training.loss import batch_loss, hardest, image_loss, pixel_loss
from cfnseg.training.sigmoid_loss import sigmoid_batch_loss
from tests.conftest import REPO


def case(images: int = 8, classes: int = 5, seed: int = 0):
    """Logits at stride 4, ignored pixels (one image wholly), padded regions, class weights."""
    torch.manual_seed(seed)
    pixel, image = torch.randn(images, classes, 6, 9), torch.randn(images, classes)
    mask = torch.randint(0, classes - 1, (images, 23, 34), dtype=torch.uint8)
    for i in range(images):
        mask[i, : 3 * i] = 255
    region = torch.tensor([[0.1, 0.2, 0.6, 0.9]]).repeat(images, 1)
    region[:, 1] = torch.tensor([0.2 if i % 2 else -0.3 for i in range(images)])
    return pixel, image, mask, region, torch.rand(classes) + 0.1


ODD = st.sampled_from(
    [0.0, -0.0, 0.25, 1.0, 1.0000001, 3e-39, 7.5, 80.0, float("inf"), float("nan")]
)


@given(
    st.lists(ODD | st.floats(0, 100, width=32), min_size=1, max_size=60),
    st.floats(0.01, 1),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_the_hardest_are_the_largest(values, share, data):
    each = torch.tensor(values)
    counted = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    )
    kept = hardest(each[None, None], counted[None, None], share)[0, 0]
    wanted = max(1, int(share * int(counted.sum())))
    order = torch.where(each.isnan(), float("inf"), each)
    if not counted.any():
        assert not kept.any()
        return
    assert not (kept & ~counted).any()
    assert kept.sum() >= wanted
    # no pixel left out is harder than one kept; more than wanted only by ties
    left = order[counted & ~kept]
    assert not len(left) or left.max() <= order[kept].min()
    if kept.sum() > wanted:
        smallest = order[kept].min()
        assert (order[kept] > smallest).sum() < wanted


def test_ohem_divides_by_the_kept_weight():
    logits, _, mask, _, weight = case()
    mask[mask == 4] = 0
    up = F.interpolate(logits, scale_factor=4, mode="bilinear")[..., :23, :34]
    each = F.cross_entropy(up, mask.long(), weight, ignore_index=255, reduction="none")
    counted = mask != 255
    k = int(0.3 * counted.sum())
    values, places = each[counted].topk(k)
    wanted = values.sum() / weight[mask[counted].long()][places].sum()
    assert pixel_loss(logits, mask, Loss(ohem=0.3), weight).item() == pytest.approx(
        wanted.item(), rel=1e-5
    )
    everything = pixel_loss(logits, mask, Loss(ohem=1.0), weight)
    assert everything.item() == pytest.approx(
        pixel_loss(logits, mask, Loss(), weight).item(), rel=1e-5
    )


def test_nothing_counted_is_zero_with_zero_gradient():
    logits, image, mask, region, weight = case()
    logits.requires_grad_()
    image.requires_grad_()
    loss = batch_loss(
        Output(logits, image),
        torch.full_like(mask, 255),
        Loss(ohem=0.5, image=1.0),
        weight,
        region=region,
    )
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
    assert not image.grad.any()


def test_a_nan_pixel_is_kept():
    logits, _, mask, _, _ = case()
    logits[0, 0, 0, 0] = float("nan")
    each = torch.zeros(1, 1, 4)
    each[..., 2] = -torch.tensor(float("nan"))  # its sign bit is set
    assert hardest(each, torch.ones(1, 1, 4, dtype=torch.bool), 0.25).tolist() == [
        [[False, False, True, False]]
    ]
    assert pixel_loss(logits, mask, Loss(ohem=0.1), None).isnan()


def test_images_whose_unlabelled_part_could_hide_a_class():
    mask = torch.zeros(4, 10, 10, dtype=torch.uint8)
    mask[1, :2] = 255  # a fifth
    mask[2, :2], mask[2, 2, 0] = 255, 255  # one pixel more
    mask[3, :, 5:] = 255  # half of the crop, but padding
    region = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3 + [[0.5, 0.0, 1.5, 1.0]])
    logits = torch.randn(4, 3, requires_grad=True)
    loss = image_loss(logits, mask, region)
    loss.backward()
    known = [0, 1, 3]
    target = torch.tensor([[1.0, 0, 0]]).expand(3, 3)
    assert loss.item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits[known], target).item(), rel=1e-6
    )
    assert logits.grad.any(1).tolist() == [True, True, False, True]
    mask[3, :3, :5] = 255  # of the half that is image, 30 %
    assert image_loss(logits[3:], mask[3:], region[3:]).item() == 0
    assert image_loss(logits[3:], mask[3:]).item() == 0  # without a region all of it is image


@pytest.mark.parametrize("mirrored", [False, True])
def test_padding_of_a_real_sample_is_no_unlabelled_part(mirrored):
    import numpy as np

    from cfnseg.config import Data
    from cfnseg.data.transforms import TrainTransform

    transform = TrainTransform(
        Data(crop=(64, 96), scale=(0.3, 0.6), flip=mirrored, photometric=0.0)
    )
    image, mask = np.zeros((77, 101, 3), np.uint8), np.ones((77, 101), np.uint8)
    for seed in range(20):
        sample = transform(image, mask, "x", seed)
        assert (sample.mask == 255).mean() > 0.2
        logits = torch.zeros(1, 2)
        loss = image_loss(
            logits, torch.from_numpy(sample.mask)[None], torch.from_numpy(sample.region)[None]
        )
        assert loss.item() == pytest.approx(0.6931, abs=1e-4)


class NoWait(TorchDispatchMode):
    """Refuses what makes a CUDA program wait: values on the host, data-dependent shapes."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if masked or name in (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "bincount",
            "_unique2",
            "equal",
            "is_nonzero",
        ):
            raise AssertionError(f"{op} waits for the device")
        return op(*args, **kwargs or {})


def test_no_wait_would_be_seen():
    x = torch.rand(4)
    for waits in (
        lambda: x[x > 0.5],
        lambda: x.sum().item(),
        lambda: x[x > 2].sum(),
        lambda: bool(x[0]),
        lambda: x[x.argmax()],
    ):
        with pytest.raises(AssertionError, match="waits"), NoWait():
            waits()


def test_ohem_and_image_loss_never_wait_for_the_device(monkeypatch):
    # on a CPU the operation itself looks at the ids; on CUDA it does not
    def plain(logits, mask, weight, label_smoothing, reduction):
        up = F.interpolate(logits, scale_factor=4, mode="bilinear")[..., :23, :34]
        return F.cross_entropy(
            up,
            mask.long(),
            weight,
            ignore_index=255,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )

    monkeypatch.setattr(module, "dense_cross_entropy", plain)
    logits, image, mask, region, weight = case()
    logits.requires_grad_()
    image.requires_grad_()
    with NoWait():
        for w in (None, weight):
            loss = batch_loss(
                Output(logits, image, (logits,)),
                mask,
                Loss(ohem=0.3, label_smoothing=0.1),
                w,
                side=0.3,
                region=region,
            )
            loss.backward()
    assert logits.grad.isfinite().all() and image.grad.any()


CASES = {
    "plain": {},
    "ohem": {"ohem": 0.05},
    "more": {"ohem": 0.3},
    "terms": {"terms": ("focal", "dice:2", "tversky", "lovasz")},
}
WORKER = """
import os, sys, torch, torch.distributed as dist
from cfnseg.config import Loss
from cfnseg.training.loss import batch_loss
from cfnseg.training.sigmoid_loss import sigmoid_batch_loss
from cfnseg.models.segmenter import Output
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
result = {}
CASES = {cases}
for name, values in CASES.items():
    pixel, image, mask, region, weight = torch.load(f"{sys.argv[1]}/case.pt", weights_only=True)
    mine = slice(rank * 4, rank * 4 + 4)
    pixel, image = pixel[mine].clone().requires_grad_(), image[mine].clone().requires_grad_()
    output, settings = Output(pixel, image, (pixel,)), Loss(**values, image=0.5)
    loss = batch_loss(output, mask[mine], settings, weight, world, 0.3, region[mine])
    loss.backward()
    result[name] = (pixel.grad / world, image.grad / world)  # as the average over processes has it
layers = torch.stack([mask, mask % 2, 1 - mask % 2], 3).clamp(max=1)
layers[mask == 255] = 255
pixel = torch.load(f"{sys.argv[1]}/case.pt", weights_only=True)[0][:, :3]
pixel = pixel[mine].clone().requires_grad_()
output, settings = Output(pixel, pixel.mean((2, 3))), Loss(image=0.5, terms=("ce", "dice"))
sigmoid_batch_loss(output, layers[mine], settings, None, world, region=region[mine]).backward()
result["sigmoid"] = (pixel.grad / world, pixel.grad / world)
torch.save(result, f"{sys.argv[1]}/{rank}.pt")
dist.barrier()
os._exit(0)  # gloo's threads abort a process that ends, once in some hundred times
"""


def test_two_processes_have_the_gradient_of_one(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.replace("{cases}", repr(CASES)))
    torch.save(case(), tmp_path / "case.pt")
    starter = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*starter, str(script), str(tmp_path)],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, values in CASES.items():
        pixel, image, mask, region, weight = case()
        pixel.requires_grad_()
        image.requires_grad_()
        batch_loss(
            Output(pixel, image, (pixel,)), mask, Loss(**values, image=0.5), weight, 1, 0.3, region
        ).backward()
        for whole, parts in zip((pixel.grad, image.grad), zip(*(s[name] for s in shares))):
            assert whole.any()
            torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-7)
    pixel, _, mask, region, _ = case()
    pixel = pixel[:, :3].clone().requires_grad_()
    layers = torch.stack([mask, mask % 2, 1 - mask % 2], 3).clamp(max=1)
    layers[mask == 255] = 255
    output = Output(pixel, pixel.mean((2, 3)))
    settings = Loss(image=0.5, terms=("ce", "dice"))
    sigmoid_batch_loss(output, layers, settings, region=region).backward()
    parts = [share["sigmoid"][0] for share in shares]
    torch.testing.assert_close(torch.cat(parts), pixel.grad, rtol=1e-5, atol=1e-7)

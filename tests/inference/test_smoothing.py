"""The average is the formula's; it begins anew at a cut, and any windows and views will do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cfnseg.inference.predictor import segment
from cfnseg.inference.settings import Inference
from cfnseg.inference.smoothing import Smoothing
from tests.inference.stubs import Place


class Pale(Place):
    """`Place` with logits that leave each class a chance."""

    def forward(self, images, region):
        output = super().forward(images, region)
        return output._replace(pixel=output.pixel / 64)


def frames(count, size=(40, 52), seed=0, noise=4):
    rng = np.random.default_rng(seed)
    still = rng.integers(60, 190, (*size, 3))
    moved = still + rng.integers(-noise, noise + 1, (count, *size, 3))
    return list(moved.clip(0, 255).astype(np.uint8))


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)


def logits(model, image):
    """Of a stub's one call for a frame."""
    region = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    return model(as_tensor(image)[None], region).pixel


@given(st.floats(0.01, 0.99), st.integers(1, 6))
def test_the_formula(share, count):
    model = Pale()
    smoothing = Smoothing(model, share)
    seen = frames(count)
    for image in seen:
        smoothing.begin(image)
        found = logits(smoothing, image)
    plain = [logits(model, image).double().softmax(1) for image in seen]
    weights = [(1 - share) * share ** (count - 1 - t) for t in range(count)]
    weights[0] = share ** (count - 1)
    expected = sum(w * p for w, p in zip(weights, plain))
    assert sum(weights) == pytest.approx(1)
    assert torch.allclose(found.double().exp(), expected, atol=1e-6)


def test_repeating_a_frame_gives_what_the_model_alone_gives():
    model, (first, second) = Pale(), frames(2)
    smoothing = Smoothing(model, 0.9)
    smoothing.begin(first)
    logits(smoothing, first)
    smoothing.begin(second)
    smoothed = logits(smoothing, second)
    smoothing.repeat()
    plain = logits(smoothing, second)
    assert torch.equal(plain, logits(model, second)) and not torch.equal(plain, smoothed)


def test_a_cut_and_another_size_begin_anew():
    (old, _), (new, _) = frames(2), frames(2, seed=1)
    new = new // 4  # a dark scene
    smoothing = Smoothing(Pale(), 0.9)
    for before, now, begins in [
        (old, new, True),
        (old, frames(2)[1], False),
        (old, old[:-4], True),
        (old[:-4], old, True),
    ]:
        smoothing.averages.clear()
        for image in (before, now):
            smoothing.begin(image)
            found = logits(smoothing, image)
        alone = logits(Pale(), now).softmax(1)
        assert torch.allclose(found.exp(), alone, atol=1e-6) == begins


@pytest.mark.parametrize(
    "inference",
    [
        Inference(),
        Inference((32, 32), 0.5, batch=2),
        Inference(scales=(0.75, 1.25), flip=True),
        Inference((32, 64), flip=True),
    ],
)
def test_a_still_clip_stays_what_it_is(inference):
    """Windows and views have averages of their own, and the mean of equal frames is the frame."""
    image = frames(1, (70, 90))[0]
    smoothing = Smoothing(Place(), 0.7)
    plain = segment(Place(), as_tensor(image), inference).mask
    for _ in range(3):
        smoothing.begin(image)
        found = segment(smoothing, as_tensor(image), inference).mask
        assert (found == plain).float().mean() > 0.999  # a tie may fall the other way
        smoothing.repeat()
        assert torch.equal(segment(smoothing, as_tensor(image), inference).mask, plain)


def test_a_state_goes_on_in_the_same_bits(tmp_path):
    seen = frames(6)
    whole, first, second = (Smoothing(Place(), 0.6) for _ in range(3))
    path = tmp_path / "state.pt"
    for index, image in enumerate(seen):
        whole.begin(image)
        expected = logits(whole, image)
        if index < 4:
            first.begin(image)
            logits(first, image)
            if index == 2:
                torch.save(first.state(index), path)
    second.weight = torch.nn.Parameter(torch.zeros(1))  # whose device the state goes to
    assert second.restore(path, 3) == 3
    for image in seen[3:]:
        second.begin(image)
        found = logits(second, image)
    assert torch.equal(found, expected)
    assert second.restore(path, 2) == 0  # the masks of frame 2 were removed
    assert second.restore(path, 0) == second.restore(tmp_path / "nothing", 9) == 0

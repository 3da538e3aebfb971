"""Windows agree with the whole image, leave no seam, and arrive as strips with neighbours."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.inference import windows
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.windows import blend_weights, starts, strips, window_rows
from cfnseg.ops import dense_argmax, dense_cross_entropy, dense_scores
from cfnseg.ops.dense_reference import upsample_logits
from tests.inference.stubs import Constant, Place

SIDES = st.integers(1, 150)
WINDOWS = st.tuples(st.integers(32, 200), st.integers(32, 200))
OVERLAPS = st.sampled_from([0.0, 0.125, 0.5, 0.8])


def cells(model, image, inference=PLAIN):
    """(1, C, h, w) logits of the whole image, and the last image logits."""
    blocks = list(window_rows(model, image, inference))
    return torch.cat([block for block, _, _ in blocks], 1)[None], blocks[-1][1]


def noise(height, width):
    return torch.randint(
        0,
        256,
        (3, height, width),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(height * 1000 + width),
    )


@given(st.integers(1, 9000), st.integers(1, 64), OVERLAPS)
def test_windows_cover_a_side_and_end_with_it(length, size, overlap):
    window = size * 32
    begins = starts(length, window, overlap)
    assert begins[0] == 0
    assert all(b % 32 == 0 for b in begins)
    assert begins == [0] if length <= window else window - 32 < length - begins[-1] <= window
    assert all(0 < b - a <= max(32, window * (1 - overlap)) for a, b in zip(begins, begins[1:]))


@given(st.integers(1, 3000), st.integers(1, 32), OVERLAPS, st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_weights_sum_to_one_everywhere(length, size, overlap, stride):
    begins = starts(length, size * 32, overlap)
    total = torch.zeros(-(-length // stride))
    for begin, weights in zip(begins, blend_weights(begins, length, size * 32, stride)):
        assert weights.min() > 0
        total[begin // stride : begin // stride + len(weights)] += weights
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


@given(SIDES, SIDES, WINDOWS, OVERLAPS, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_windows_know_their_place_and_leave_no_seam(height, width, window, overlap, batch):
    image = noise(height, width)
    whole, labels = cells(Place(), image)
    found, found_labels = cells(
        Place(), image, Inference(window=window, overlap=overlap, batch=batch)
    )
    assert found.shape == whole.shape == (1, 3, -(-height // 4), -(-width // 4))
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found_labels, labels)


@given(
    SIDES,
    SIDES,
    WINDOWS,
    OVERLAPS,
    st.sampled_from([1, 4, 32]),
    st.sampled_from([(1.0,), (0.5,), (0.75, 1.0, 1.3)]),
)
@settings(max_examples=60, deadline=None)
def test_a_constant_stays_exactly_that(height, width, window, overlap, stride, scales):
    logits = torch.tensor([1.5, -20.0, 3.25])
    found, _ = cells(
        Constant((1.5, -20.0, 3.25), stride),
        noise(height, width),
        Inference(window, overlap, scales=scales),
    )
    expected = logits if len(scales) == 1 else logits.log_softmax(0)
    torch.testing.assert_close(
        found, expected[:, None, None].expand_as(found[0])[None], rtol=2e-6, atol=0
    )


def test_a_window_counts_most_where_it_sees_most_around():
    """Sigma is 1/8 of the window: equal weights mid-overlap, next to nothing at a window's end."""
    first, second = blend_weights([0, 192], 448, 256, 4)
    assert first[55] > 0.5 > first[56]  # the middle of the 16 cells that both see
    end, inside = (
        math.exp(-0.5 * (cells / 8) ** 2) for cells in (31.5, 16.5)
    )  # from either window's middle
    assert math.isclose(first[-1], end / (end + inside), rel_tol=1e-4)
    torch.testing.assert_close(first.flip(0), second)


@pytest.mark.parametrize("bytes_", [1, 40_000, 2**26])
@pytest.mark.parametrize(
    ("size", "window"),
    [((131, 97), (64, 32)), ((130, 75), None), ((5, 40), None), ((64, 64), (32, 96))],
)
def test_strips_are_those_of_the_whole(monkeypatch, size, window, bytes_):
    """Classes, scores and loss of strips of any height equal the ones of the whole logits."""
    monkeypatch.setattr(windows, "STRIP_BYTES", bytes_)
    image, inference = noise(*size), Inference(window)
    truth = torch.randint(0, 4, size, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    truth[truth == 3] = 255
    model = Place()
    pieces = list(strips(model, image, inference))
    whole = cells(model, image, inference)[0]
    assert [p.rows.start for p in pieces] == [0, *(p.rows.stop for p in pieces[:-1])]
    assert pieces[-1].rows.stop == size[0]
    assert len(pieces) > 1 or bytes_ > 1 or size[0] < 8
    full = torch.cat(
        [
            upsample_logits(p.logits, p.size)[:, :, p.skip :][:, :, : p.rows.stop - p.rows.start]
            for p in pieces
        ],
        2,
    )
    torch.testing.assert_close(full, upsample_logits(whole, size), rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat([p.classes() for p in pieces]), dense_argmax(whole, size)[0])
    classes, top = (torch.cat(parts) for parts in zip(*(p.scores() for p in pieces)))
    assert torch.equal(classes, dense_scores(whole, size)[0][0])
    torch.testing.assert_close(top, dense_scores(whole, size)[1][0])
    loss = sum(float(p.cross_entropy(truth)) for p in pieces)
    assert math.isclose(
        loss, float(dense_cross_entropy(whole, truth[None], reduction="sum")), rel_tol=1e-5
    )


def test_only_the_rows_that_windows_below_touch_are_kept():
    blocks = list(window_rows(Place(), noise(700, 50), Inference((128, 64), 0.5)))
    assert [block.shape[1] for block, _, _ in blocks] == [16] * 9 + [175 - 9 * 16]


def test_batches_hold_windows_of_one_size():
    class Counting(Place):
        def forward(self, images, region):
            seen.append(tuple(images.shape))
            return super().forward(images, region)

    seen = []
    cells(Counting(), noise(64, 64 * 5 + 8), Inference((64, 64), 0.0, batch=2))
    assert seen == [(2, 3, 64, 64), (2, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 40)]

"""Label sets whose answer is known, and the same numbers by scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import log_loss

from cfnseg.metrics import place
from cfnseg.metrics.place import GRIDS, measure_place
from cfnseg.metrics.uncertainty import seed_difference

NONE = np.zeros((0, 24, 32), np.uint8)
GRID = st.sampled_from(GRIDS)
seeds = st.integers(0, 2**32 - 1)


def noisy(clean: np.ndarray, masks: int, classes: int, seed: int = 0, share: float = 0.1):
    """Masks that are ``clean`` but for a share of the pixels, which are random."""
    rng = np.random.default_rng(seed)
    shape = (masks, 24, 32)
    other = rng.integers(classes, size=shape)
    return np.where(rng.random(shape) < share, other, clean).astype(np.uint8)


def by_cell(grid, classes: int = 4, seed: int = 1):
    """(24, 32): a class for each cell of a grid; neighbours differ."""
    height, width = grid
    cells = np.random.default_rng(seed).integers(classes, size=grid)
    cells = (cells + np.add.outer(np.arange(height), np.arange(width))) % classes
    return cells.repeat(24 // height, 0).repeat(32 // width, 1)


def eyes(masks: int, seed: int = 0, classes=(1, 2), rows=(8, 8)):
    """Two patches, mirror images of each other, that move a little from mask to mask."""
    rng = np.random.default_rng(seed)
    out = np.zeros((masks, 24, 32), np.uint8)
    for mask in out:
        y, x = rng.integers(-1, 2, 2)
        mask[rows[0] + y : rows[0] + 4 + y, 6 + x : 12 + x] = classes[0]
        mask[rows[1] + y : rows[1] + 4 + y, 20 + x : 26 + x] = classes[1]
    return out


@pytest.mark.parametrize("grid", [(6, 1), (6, 8), (12, 16), (24, 32)])
def test_labels_by_cell_propose_their_grid(grid):
    found = measure_place(noisy(by_cell(grid), 40, 4), NONE, 4)
    assert found.grid == grid
    assert found.shares[grid].value > 0.6
    assert all(abs(found.shares[g].value) < 0.5 for g in GRIDS if g < grid)
    assert found.shares[1, 1] == (0, 0, 0)


def test_labels_by_column_need_cells():
    columns = np.broadcast_to(np.arange(32) // 4 % 3, (24, 32))
    found = measure_place(noisy(columns, 40, 3), NONE, 3)
    assert found.grid == (6, 8) and abs(found.shares[6, 1].value) < 0.05


def test_labels_without_a_place_propose_one_weight():
    rng = np.random.default_rng(0)
    pixels = measure_place(rng.integers(3, size=(60, 24, 32)).astype(np.uint8), NONE, 3)
    masks = measure_place(np.tile(rng.integers(3, size=(60, 1, 1)), (24, 32)), NONE, 3)
    for found in (pixels, masks):
        assert found.grid == (1, 1) and not found.swaps
        assert all(-0.2 < share.value < 0.02 for share in found.shares.values())


def test_few_masks_and_ignored_masks():
    masks = noisy(by_cell((6, 1)), 12, 4)
    assert measure_place(masks[:9], masks[9:], 4) is None
    assert measure_place(masks[:10], NONE, 4).masks == 10
    masks[:3] = 255
    assert measure_place(masks, NONE, 4) is None
    assert measure_place(NONE, NONE, 4) is None


@given(seeds, st.integers(0, 6))
@settings(max_examples=10, deadline=None)
def test_ignored_pixels_do_not_count(seed, more):
    """A mask in which everything is ignored changes nothing; ignored pixels are in no count."""
    rng = np.random.default_rng(seed)
    masks = noisy(by_cell((6, 8)), 20, 4, seed)
    masks[rng.random(masks.shape) < 0.3] = 255
    found = measure_place(masks, NONE, 4)
    at = np.sort(rng.integers(0, 20, more))
    again = measure_place(np.insert(masks, at, 255, 0), NONE, 4)
    assert again.shares == found.shares and again.masks == 20
    assert found.counts.sum() == (masks != 255).sum()
    assert np.array_equal(found.counts.sum((0, 1)), np.bincount(masks[masks != 255], minlength=4))


@given(seeds, GRID, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_coarse_grid_is_the_sum_of_its_cells(seed, grid, classes):
    masks = np.random.default_rng(seed).integers(classes + 1, size=(7, 24, 32)).astype(np.uint8)
    masks[masks == classes] = 255
    direct = np.zeros((*grid, classes), int)
    for mask in masks:
        for (y, x), c in np.ndenumerate(mask):
            if c != 255:
                direct[y * grid[0] // 24, x * grid[1] // 32, c] += 1
    part = place.count_part(masks, classes)
    assert np.array_equal(place.coarsened(part.counts, grid), direct)
    assert part.having.tolist() == [(masks == c).any((1, 2)).sum() for c in range(classes)]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_shares_are_those_of_sklearn(grid):
    """Each pixel's probabilities by hand, the cross-entropies by scikit-learn."""
    train, val = noisy(by_cell((6, 8)), 20, 4, 0, 0.4), noisy(by_cell((6, 8)), 8, 4, 5, 0.6)
    train[:, :5] = 255

    def frequencies(masks, grid):
        one = (masks != 255).sum() / len(masks)
        counts = np.bincount(masks[masks != 255], minlength=4)
        overall = (counts + one / 4) / (counts.sum() + one)
        if grid == (1, 1):
            return np.broadcast_to(overall, (24, 32, 4))
        high, wide = 24 // grid[0], 32 // grid[1]
        probs, weight = np.zeros((24, 32, 4)), one / (grid[0] * grid[1])
        for y in range(0, 24, high):
            for x in range(0, 32, wide):
                cell = masks[:, y : y + high, x : x + wide]
                counts = np.bincount(cell[cell != 255], minlength=4)
                probs[y : y + high, x : x + wide] = (counts + weight * overall) / (
                    counts.sum() + weight
                )
        return probs

    plain, placed, pixels = [], [], 0
    parts = [(np.delete(train, np.s_[k : k + 4], 0), train[k : k + 4]) for k in range(0, 20, 4)]
    parts += [(train, val[:4]), (train, val[4:])]
    for known, held in parts:
        for losses, own in ((plain, (1, 1)), (placed, grid)):
            probs = np.broadcast_to(frequencies(known, own), (*held.shape, 4))[held != 255]
            truth = held[held != 255]
            losses.append(log_loss(truth, probs, labels=range(4), normalize=False) / np.log(2))
        pixels += (held != 255).sum()
    found = measure_place(train, val, 4)
    assert found.parts == 7
    assert found.entropy == pytest.approx(sum(plain) / pixels)
    assert found.shares[grid].value == pytest.approx(1 - sum(placed) / sum(plain))


def test_the_entropy_is_that_of_scipy_plus_the_divergence():
    train = noisy(np.zeros((24, 32), int), 20, 3, share=0.5)
    known = place.count_part(train, 3)
    model = place.frequencies(known.counts, 20, (1, 1))[0, 0]
    held = place.count_part(noisy(np.ones((24, 32), int), 5, 3, share=0.9), 3).counts.sum((0, 1))
    cross = -(held / held.sum() * np.log2(model)).sum()
    assert cross == pytest.approx(entropy(held, base=2) + entropy(held, model, base=2))


@given(seeds, GRID, st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_frequencies_are_probabilities(seed, grid, classes):
    counts = np.random.default_rng(seed).integers(4, size=(24, 32, classes))
    counts[0, 0, 0] += 1
    found = place.frequencies(counts, 3, grid)
    assert found.shape == (*grid, classes) and found.min() > 0
    assert np.allclose(found.sum(-1), 1)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9), st.floats(0.5, 5))
@settings(deadline=None)
def test_the_interval_is_students_where_parts_are_alike(saved, whole):
    share = place._ratio(np.array(saved), np.full(len(saved), whole))
    value, low, high = seed_difference(np.divide(saved, whole), np.zeros(len(saved)))
    assert share == pytest.approx((value, low, min(1, high)), abs=1e-9)


def test_a_gain_that_some_parts_lack_is_no_proposal():
    """Rows tell the labels of four parts in five, and mislead on the fifth."""
    masks = noisy(by_cell((6, 1)), 60, 4)
    masks[:12] = 3 - masks[:12]
    found = measure_place(masks, NONE, 4)
    assert found.shares[6, 1].value > 0.1 and found.shares[6, 1].low < 0
    assert found.grid is None and found.to_dict()["proposal"] is None
    assert found.gain.value >= found.shares[6, 1].value


def test_eyes_are_left_and_right():
    (swap,) = measure_place(eyes(30), NONE, 3).swaps
    assert swap.classes == (1, 2)
    assert swap.unlikely > 10 and 0.9 < swap.regained < 1.1
    assert measure_place(eyes(12), eyes(20, 1), 3).swaps[0].classes == (1, 2)


@pytest.mark.parametrize(
    "masks, classes",
    [
        (eyes(30, classes=(1, 1)), 2),  # one class for both
        (eyes(30, classes=(1, 0)), 2),  # a class on one side, without a partner
        (eyes(30, rows=(2, 16)), 3),  # on two sides, at two heights
        (noisy(by_cell((6, 1)), 30, 4), 4),
        (eyes(9 + 1)[:9], 3),
    ],
)
def test_what_is_not_left_and_right(masks, classes):
    assert not place.find_swaps(place.split_parts(masks, NONE, classes))


def test_traffic_on_one_side_is_no_swap():
    """A road with oncoming cars on the left, parked bicycles on the right, each with exceptions."""
    rng = np.random.default_rng(0)
    masks = np.zeros((60, 24, 32), np.uint8)
    masks[:, 12:] = 1
    for mask in masks:
        for c, likely in ((2, 0.65), (3, 0.35)):
            x = rng.integers(1, 11) + 17 * (rng.random() > likely)
            mask[11:15, x : x + 4] = c
    assert measure_place(masks, NONE, 4).swaps == []


def test_both_of_faces_that_look_either_way_are_no_swap():
    masks = eyes(60)
    masks[::2] = masks[::2, :, ::-1]
    assert measure_place(masks, NONE, 3).swaps == []


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (240, 320), (1, 1), (7, 5), (375, 500, 3)])
def test_sampled_takes_the_pixel_at_the_middle(size):
    mask = np.arange(np.prod(size), dtype=np.int64).reshape(size)
    found = place.sampled(mask)
    assert found.shape == (24, 32, *size[2:])
    middle = [
        [int((k + 0.5) * n / cells) for k in range(cells)] for n, cells in zip(size, (24, 32))
    ]
    assert np.array_equal(found, mask[np.ix_(*middle)])


def test_a_mirrored_mask_has_the_mirrored_sample():
    mask = np.random.default_rng(0).integers(9, size=(101, 161))
    assert np.array_equal(place.sampled(mask[:, ::-1]), place.sampled(mask)[:, ::-1])


def test_names_of_left_and_right():
    names = [
        "l_ear",
        "Right lung",
        "eye_left",
        "eye_right",
        "leftArm",
        "r_ear",
        "Left lung",
        "RightArm",
    ]
    assert set(place.named_sides(names)) == {
        ("l_ear", "r_ear"),
        ("eye_left", "eye_right"),
        ("Right lung", "Left lung"),
        ("leftArm", "RightArm"),
    }
    assert place.named_sides(["left", "car", "wall", "war", "left_lane"]) == []

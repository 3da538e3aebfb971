"""Order and randomness: no number of workers or processes and no restart changes a sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.config import Data
from cfnseg.data.dataset import open_dataset, read_truth
from cfnseg.data.loader import (
    StepBatches,
    class_counts,
    class_frequency,
    median_frequency_weights,
    parallel,
    train_batches,
    whole_images,
)
from cfnseg.data.transforms import TrainTransform
from cfnseg.errors import UserError


@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(0, 5),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 30),
)
def test_shares_make_up_the_batch_and_a_start_is_a_cut(images, share, seed, world, start):
    batch = share * world
    if batch > images:
        return
    whole = list(StepBatches(images, batch, seed, 0, 40))
    parts = [
        list(StepBatches(images, batch, seed, start, 40, rank, world)) for rank in range(world)
    ]
    assert [[pair for share in step for pair in share] for step in zip(*parts)] == whole[start:]


def test_an_epoch_shows_each_image_once():
    steps = list(StepBatches(13, 4, 0, 0, 6))
    for epoch in (0, 1):
        seen = [pick.index for step in steps for pick in step if pick.epoch == epoch]
        assert len(seen) == len(set(seen)) == 12


IMAGES_OF = [np.arange(40), np.array([3]), np.array([], int), np.array([5, 6])]


def test_classes_are_drawn_evenly_and_an_absent_one_never():
    steps = list(StepBatches(40, 8, 0, 0, 1000, rare=0.5, images_of=IMAGES_OF))
    drawn = [pick for step in steps for pick in step if pick.wanted >= 0]
    counts = np.bincount([pick.wanted for pick in drawn], minlength=4)
    assert 3700 < counts.sum() < 4300 and counts[2] == 0
    assert all(1150 < n < 1500 for n in counts[[0, 1, 3]])
    assert all(pick.index in IMAGES_OF[pick.wanted] for pick in drawn)
    assert {pick.index for pick in drawn if pick.wanted == 3} == {5, 6}
    kept = [pick for step in steps[:5] for pick in step if pick.wanted < 0]
    assert len(kept) == len({pick.index for pick in kept})  # each at its own turn


def test_a_drawn_image_is_cut_anew_each_time(folder_data):
    data = open_dataset("folder", str(folder_data), "train")
    order = StepBatches(len(data.names), 4, 7, 0, 3, rare=1.0, images_of=[np.array([2])])
    batch = next(train_batches(data, TrainTransform(Data(crop=(48, 64))), order, 0))
    assert set(batch["names"]) == {data.names[2]}
    assert len(np.unique(batch["region"], axis=0)) == 4


@given(st.integers(1, 4), st.integers(0, 30), st.floats(0, 1))
@settings(deadline=None)
def test_draws_are_cut_as_well(world, start, rare):
    """A resumed run and several processes draw the same images."""
    drawn = {"rare": rare, "images_of": IMAGES_OF}
    whole = list(StepBatches(40, 12, 3, 0, 35, **drawn))
    parts = [list(StepBatches(40, 12, 3, start, 35, r, world, **drawn)) for r in range(world)]
    assert [[pick for share in step for pick in share] for step in zip(*parts)] == whole[start:]


def test_impossible_batches():
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        StepBatches(20, 8, 0, 0, 1, 0, 3)
    with pytest.raises(UserError, match=r"train\.batch 8 is more than the 5 training images"):
        StepBatches(5, 8, 0, 0, 1)


def batches(folder_data, workers, start=0):
    data = open_dataset("folder", str(folder_data), "train")
    order = StepBatches(len(data.names), 4, 7, start, 5)
    return list(train_batches(data, TrainTransform(Data(crop=(48, 64))), order, workers))


def test_workers_do_not_change_a_sample(folder_data):
    expected = batches(folder_data, 0)
    for workers, start in ((1, 0), (3, 0), (2, 3)):
        got = batches(folder_data, workers, start)
        assert len(got) == len(expected[start:])
        for a, b in zip(got, expected[start:]):
            assert a["names"] == b["names"]
            assert all(np.array_equal(a[k], b[k]) for k in ("image", "mask", "region"))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_whole_images_are_read_once_over_all_processes(folder_data, world):
    data = open_dataset("folder", str(folder_data), "val")
    seen = [i for rank in range(world) for i, _, _ in whole_images(data, 0, rank, world)]
    assert sorted(seen) == list(range(5))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_one_clear_error_from_any_worker(folder_data, tmp_path, workers):
    import shutil

    root = tmp_path / "broken"
    shutil.copytree(folder_data, root)
    (root / "images" / "train" / "s03.png").write_text("no image")
    with pytest.raises(UserError, match=r"s03\.png: not a readable image"):
        batches(root, workers)


def test_median_frequency_weights():
    counts = np.array([[90, 10, 0], [50, 0, 0]])
    # frequencies: 140/150, 10/100; the median of the two
    middle = (140 / 150 + 0.1) / 2
    assert median_frequency_weights(class_frequency(counts)) == pytest.approx(
        [middle / (140 / 150), middle / 0.1, 0]
    )
    assert median_frequency_weights(class_frequency(counts), 0.5)[1] == pytest.approx(
        (middle / 0.1) ** 0.5
    )


def test_class_counts(folder_data):
    data = open_dataset("folder", str(folder_data), "val")
    counts = class_counts(data, 0)
    assert (
        counts[2].tolist()
        == np.bincount(read_truth(data, 2).ravel(), minlength=256)[: len(data.labels)].tolist()
    )


def square(number):
    if number == 5:
        raise UserError("five", code=2)
    return np.array([number**2])


@pytest.mark.parametrize("workers", [0, 2])
def test_parallel_keeps_the_order_and_raises_the_error_itself(workers):
    results = parallel(square, [3, 1, 2, 5, 4], workers)
    assert [int(next(results)[0]) for _ in range(3)] == [9, 1, 4]
    with pytest.raises(UserError, match="^five$") as error:
        next(results)
    assert error.value.code == 2

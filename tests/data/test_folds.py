"""Folds: every image in one, groups together, the same whatever the order; and held out by them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfnseg.config import Config, Data, check
from cfnseg.data.dataset import hold_out, open_dataset
from cfnseg.data.folds import folds_of, group_of, held_out
from cfnseg.errors import UserError

NAMES = st.lists(st.text("ab_1", min_size=1, max_size=6), min_size=1, max_size=40, unique=True)


@given(NAMES, st.integers(2, 7), st.sampled_from(["", "_", "?", "_*_"]), st.randoms())
def test_folds_keep_groups_together_and_ignore_the_order(names, count, pattern, random):
    folds = dict(zip(names, folds_of(names, count, pattern)))
    assert set(folds.values()) <= set(range(count))
    by_group = {}
    for name, fold in folds.items():
        assert by_group.setdefault(group_of(name, pattern), fold) == fold
    shuffled = random.sample(names, len(names))
    assert dict(zip(shuffled, folds_of(shuffled, count, pattern))) == folds


@given(NAMES, st.integers(2, 7))
def test_folds_of_single_images_differ_by_one_at_most(names, count):
    folds = folds_of(names, count)
    sizes = [folds.count(fold) for fold in range(count)]
    assert max(sizes) - min(sizes) <= 1


def test_group_of():
    assert group_of("12_034_a", "_") == "12_" and group_of("12_034_a", "_*_") == "12_034_"
    assert group_of("abcdef", "????") == "abcd" and group_of("abc", "_") == "abc"


def test_the_parts_of_a_split_hold_out_each_image_once():
    data = open_dataset("shapes", "", "val")
    held = []
    for fold in range(3):
        rest, own = hold_out(data, Data(fold=f"{fold}/3"))
        assert set(rest.names).isdisjoint(own.names) and len(rest.names) + len(own.names) == 100
        held += own.names
    assert sorted(held) == sorted(data.names)
    assert sum(held_out(data.names, Data(holdout="val_000"))) == 10


@pytest.mark.parametrize("fold", ["5/5", "0/1", "1", "a/b", "-1/5", "0/5/6"])
def test_a_wrong_fold_is_a_usage_error(fold):
    with pytest.raises(UserError, match=r"data.fold is .*k/n"):
        check(Config(name="x", data=Data(fold=fold)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(fold="0/5", holdout="a"), "data.fold is 0/5; expected nothing with data.holdout"),
        (Data(group_by="_"), "data.group_by is _; expected data.fold with it"),
    ],
)
def test_settings_that_do_not_go_together(data, message):
    with pytest.raises(UserError, match=message):
        check(Config(name="x", data=data))


def test_one_group_cannot_be_divided():
    data = open_dataset("shapes", "", "val")
    with pytest.raises(UserError, match=r"data.fold 1/2 by '_' matches 0 of 100"):
        hold_out(data, Data(fold="1/2", group_by="_"))

"""Which images validate."""

from hypothesis import given
from hypothesis import strategies as st

from cfnseg.data.annotations.splitting import group_of, split_images


@given(
    st.lists(st.text("ab_1", min_size=1, max_size=6), min_size=2, unique=True),
    st.floats(0.01, 0.9),
)
def test_a_share_validates_whatever_the_order(names, share):
    found = split_images(names, [""] * len(names), share)
    count = found.count("val")
    assert 1 <= count < len(names) and abs(count - share * len(names)) <= 1
    other = split_images(names[::-1], [""] * len(names), share)
    assert other == found[::-1]


def test_groups_stay_together():
    names = [f"clip{c}_{frame}.jpg" for c in range(8) for frame in range(5)]
    found = split_images(names, [""] * 40, 0.25, "_")
    assert found.count("val") == 10
    assert all(len(set(found[i : i + 5])) == 1 for i in range(0, 40, 5))
    assert any(
        len(set(split_images(names, [""] * 40, 0.25)[i : i + 5])) > 1 for i in range(0, 40, 5)
    )


def test_named_splits_stay():
    given = ["train", "val", "", "test"]
    assert split_images(list("abcd"), given, 0.5) == ["train", "val", "train", "test"]
    found = split_images(list("abcdef"), ["train"] * 5 + ["test"], 0.2)
    assert found.count("val") == 1 and found[5] == "test"
    assert split_images(["a"], [""], 0.2) == ["train"]
    assert split_images(list("ab"), ["", ""], 0) == ["train", "train"]


def test_the_group_of_a_name():
    cases = {
        ("a_b_c", "_"): "a_",
        ("a_b_c", "_*_"): "a_b_",
        ("abcdef", "????"): "abcd",
        ("ab", "_"): "ab",
        ("v12f3", "[0-9]f"): "v12f",
        ("ab", ""): "ab",
    }
    assert {case: group_of(*case) for case in cases} == cases

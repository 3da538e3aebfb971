"""What ids were made into is recognised from the values alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cfnseg.data.formats.voc import color
from cfnseg.data.labels import Label, LabelMap
from cfnseg.doctor.forms import PLAIN, assign
from cfnseg.doctor.reading import mask_facts


def labels_of(count: int) -> LabelMap:
    return LabelMap(Label(i, f"c{i}", color(i)) for i in range(count))


@st.composite
def plain(draw):
    """Masks of a few classes that together have all ids 0..C-1 and some ignored pixels."""
    count = draw(st.integers(3, 21))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = [
        rng.integers(0, count, (9, 11)).astype(np.uint8) for _ in range(draw(st.integers(1, 3)))
    ]
    masks[0].ravel()[:count] = np.arange(count)
    masks[0][-1, -1] = 255
    return count, masks


@given(plain())
def test_known_ids_are_plain(drawn):
    count, masks = drawn
    assert assign([mask_facts(m) for m in masks], labels_of(count)) == [PLAIN] * len(masks)


@given(plain(), st.data())
def test_the_factor_is_found(drawn, data):
    count, masks = drawn
    factor = data.draw(st.integers(2, 254 // (count - 1)))
    facts = [mask_facts(np.where(m == 255, 255, m * factor).astype(np.uint8)) for m in masks]
    for fact, form, mask in zip(facts, assign(facts, labels_of(count)), masks):
        assert form.kind == "mask-scaled"
        assert np.array_equal(form.ids(fact.values), np.unique(mask))


@given(plain())
def test_colours_and_deep_values_give_back_the_ids(drawn):
    count, masks = drawn
    labels = labels_of(count)
    for change, kind in (
        (lambda m: labels.palette()[m], "mask-colors"),
        (lambda m: m.astype(np.uint16) * 257, "mask-deep"),
        (lambda m: m.astype(np.int32) * 1000 + 3, "mask-deep"),
    ):
        facts = [mask_facts(change(m)) for m in masks]
        for fact, form, mask in zip(facts, assign(facts, labels), masks):
            assert form.kind == kind
            assert sorted(form.ids(fact.values).tolist()) == np.unique(mask).tolist()


def test_one_odd_id_is_not_taken_for_a_factor():
    mask = np.zeros((8, 8), np.uint8)
    mask[0] = 40
    assert assign([mask_facts(mask)], labels_of(5)) == [None]

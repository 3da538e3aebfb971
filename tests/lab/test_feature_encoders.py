"""Every encoder keeps scikit-learn's contract; codes are right for any descriptors."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from cfnseg.lab.local_codes import sampled
from tests.lab.samples import CHANNELS, ENCODERS, LENGTHS, LOCAL, NEXT, inputs, scenes

TRAIN = scenes(150, 0)
FITTED = {name: clone(encoder).fit(inputs(name, *TRAIN[:2])) for name, encoder in ENCODERS.items()}
of_each = pytest.mark.parametrize("name", ENCODERS)
of_places = pytest.mark.parametrize("name", [n for n in ENCODERS if n != "fused"])
numbers = st.integers(-512, 512).map(
    lambda n: n / 64
)  # activations, none so small that its square is lost
a_batch = st.integers(1, 6).flatmap(
    lambda places: st.tuples(
        arrays(np.float32, (2, places, CHANNELS), elements=numbers),
        arrays(np.float32, (2, places, NEXT), elements=numbers),
    )
)


@of_each
def test_shape_type_and_parameters(name):
    codes = FITTED[name].transform(inputs(name, *scenes(7, 1)[:2]))
    assert codes.shape == (7, LENGTHS[name])
    assert codes.dtype == np.float32
    again = clone(FITTED[name])
    assert again.get_params() == ENCODERS[name].get_params()
    assert not [a for a in vars(again) if a.endswith("_")]
    assert again.set_params(**again.get_params()) is again
    assert FITTED[name].transform(inputs(name, *(a[:0] for a in TRAIN[:2]))).shape == (
        0,
        LENGTHS[name],
    )


@of_each
def test_a_seed_decides_the_code(name):
    given_x = inputs(name, *TRAIN[:2])
    first, second = (clone(ENCODERS[name]).fit(given_x).transform(given_x) for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-6)
    np.testing.assert_allclose(first, clone(ENCODERS[name]).fit_transform(given_x), atol=1e-6)


@pytest.mark.parametrize("name", LOCAL)
def test_the_sample_is_seeded_and_bounded(name):
    def codes(**settings):
        return clone(ENCODERS[name]).set_params(**settings).fit(TRAIN[0]).transform(TRAIN[0][:5])

    np.testing.assert_allclose(codes(sample=100, seed=3), codes(sample=100, seed=3), atol=1e-6)
    assert not np.allclose(codes(sample=100, seed=3), codes(sample=100, seed=4), atol=1e-3)
    with pytest.raises(ValueError, match="=.*expected 1 to 2"):
        codes(sample=2)


def test_the_sample_is_of_all_places():
    x = np.arange(300 * 20, dtype=np.float32).reshape(300, 20, 1)
    chosen = sampled(x, 2000, seed=0)[:, 0]
    assert len(set(chosen)) == 2000
    assert set(chosen) <= set(x.ravel())
    assert set(chosen % 20) == set(range(20))
    assert len(set(chosen // 20)) > 290
    np.testing.assert_array_equal(sampled(x, 6000, seed=0)[:, 0], x.ravel())


@pytest.mark.parametrize("name", [*LOCAL, "cross"])
def test_pca_is_bounded_by_the_channels_and_can_be_left_out(name):
    given_x, width = inputs(name, *TRAIN[:2]), LENGTHS[name] // 6 * CHANNELS
    for dimensions in (64, None):
        codes = (
            clone(ENCODERS[name]).set_params(dimensions=dimensions).fit(given_x).transform(given_x)
        )
        assert codes.shape[1] == (LENGTHS[name] if name == "bow" else width)
        np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-5)


@of_each
def test_blocks_do_not_show(name, monkeypatch):
    given_x = inputs(name, *scenes(9, 4)[:2])
    whole = FITTED[name].transform(given_x)
    monkeypatch.setattr("cfnseg.lab.local_codes.BLOCK", 40)  # two images of 20 places
    np.testing.assert_allclose(FITTED[name].transform(given_x), whole, atol=1e-6)


@of_each
def test_in_a_pipeline_it_separates_the_classes(name):
    x, indicators, labels = scenes(200, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make_pipeline(clone(ENCODERS[name]), LinearSVC(C=10)).fit(
            inputs(name, *TRAIN[:2]), TRAIN[2]
        )
    assert model.score(inputs(name, x, indicators), labels) > 0.8  # chance is a third


@of_each
def test_not_fitted(name):
    with pytest.raises(NotFittedError):
        clone(ENCODERS[name]).transform(inputs(name, *TRAIN[:2]))


@of_each
def test_bad_inputs_are_named(name):
    x, indicators, _ = scenes(3, 6)
    fitted, nan = FITTED[name], np.full_like(x, np.nan)
    empty = [] if name == "fused" else [inputs(name, x[:, :0], indicators[:, :0])]
    for bad in (x[0, 0], x.astype(int), inputs(name, x[..., :0], indicators), *empty):
        with pytest.raises(ValueError, match="X"):
            clone(fitted).fit(bad)
    with pytest.raises(ValueError, match="X.*expected 10 .*in fit, got 9"):
        fitted.transform(inputs(name, x[..., :9], indicators))
    with pytest.raises(ValueError, match="X.*not finite"):
        fitted.transform(inputs(name, nan, indicators))


@pytest.mark.parametrize("name", [*LOCAL, "cross"])
def test_bad_settings_are_named(name):
    given_x = inputs(name, *TRAIN[:2])
    for setting in ("dimensions", "sample"):
        with pytest.raises(ValueError, match=setting):
            clone(ENCODERS[name]).set_params(**{setting: 0}).fit(given_x)
    with pytest.raises(ValueError, match="not finite"):
        clone(ENCODERS[name]).fit(inputs(name, np.full_like(TRAIN[0], np.inf), TRAIN[1]))
    with pytest.raises(ValueError, match="no images"):
        clone(ENCODERS[name]).fit(inputs(name, TRAIN[0][:0], TRAIN[1][:0]))


@of_places
@settings(max_examples=40, deadline=None)
@given(batch=a_batch, seed=st.integers(0, 99))
def test_a_code_of_any_descriptors(name, batch, seed):
    """Norm 1, whatever the order of the places, and whether each is there once or three times."""
    x, indicators = batch
    codes = FITTED[name].transform(inputs(name, x, indicators))
    norms = np.linalg.norm(codes.astype(np.float64), axis=1)
    empty = {
        "average": ~x.astype(np.float64).mean(1).any(1),
        "cross": ~(indicators > 0).any((1, 2)),
    }.get(name, np.zeros(2, bool))
    np.testing.assert_allclose(norms, np.where(empty, 0, 1), atol=1e-5)
    order = np.random.default_rng(seed).permutation(x.shape[1])
    for index in (order, np.tile(np.arange(x.shape[1]), 3)):
        same = FITTED[name].transform(inputs(name, x[:, index], indicators[:, index]))
        np.testing.assert_allclose(same, codes, atol=1e-5)
    both = FITTED[name].transform(inputs(name, x[::-1], indicators[::-1]))
    np.testing.assert_allclose(both, codes[::-1], atol=1e-5)

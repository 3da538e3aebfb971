"""Scores of codes: retrieval against scikit-learn, the SVM on easy classes, and the table."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC

from cfnseg.lab import encodings
from cfnseg.lab.encodings import (
    Row,
    compare_encoders,
    linear_svm_accuracy,
    markdown_table,
    retrieval_map,
)
from tests.lab.samples import ENCODERS, LENGTHS, inputs, scenes


def by_sklearn(database_x, database_y, queries_x=None, queries_y=None) -> float:
    scores, alone = [], queries_x is None
    for i, (q, y) in enumerate(
        zip(*((database_x, database_y) if alone else (queries_x, queries_y)))
    ):
        others = np.arange(len(database_x)) != i if alone else np.ones(len(database_x), bool)
        cosine = [float(d @ q / np.sqrt((d @ d) * (q @ q))) for d in database_x[others]]
        if (database_y[others] == y).any():
            scores.append(average_precision_score(database_y[others] == y, cosine))
    return float(np.mean(scores))


@pytest.mark.parametrize("cells", [1, 70, 2**21])
def test_retrieval_is_sklearns(cells, monkeypatch):
    monkeypatch.setattr(encodings, "CELLS", cells)
    rng = np.random.default_rng(0)
    database_x, database_y = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    queries_x, queries_y = (
        rng.normal(size=(13, 4)) * 50,
        rng.integers(0, 5, 13),
    )  # no image has label 4
    assert 4 in queries_y
    assert retrieval_map(database_x, database_y) == pytest.approx(
        by_sklearn(database_x, database_y), abs=1e-12
    )
    got = retrieval_map(database_x, database_y, queries_x, queries_y)
    assert got == pytest.approx(by_sklearn(database_x, database_y, queries_x, queries_y), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(3, 25), data=st.data())
def test_retrieval_with_equal_similarities(seed, count, data):
    """Unit vectors on the axes: similarities are 0 and 1; the database's order has no effect."""
    rng = np.random.default_rng(seed)
    x, y = np.eye(3)[rng.integers(0, 3, count)], rng.integers(0, 2, count)
    y[:2] = 0
    score = retrieval_map(x, y)
    assert score == pytest.approx(by_sklearn(x, y), abs=1e-12)
    order = np.array(data.draw(st.permutations(range(count))))
    assert retrieval_map(x[order], y[order]) == pytest.approx(score, abs=1e-12)


def test_retrieval_by_hand():
    x = np.array([[1, 0], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9]], np.float32)
    assert retrieval_map(x, ["a", "b", "a", "b"]) == pytest.approx(
        (1 / 2 + 1 / 3 + 1 / 3 + 1 / 2) / 4
    )
    assert retrieval_map(x.astype(np.float16), ["a", "a", "b", "b"]) == pytest.approx(1)
    assert math.isnan(retrieval_map(x, [0, 1, 2, 3]))
    assert not math.isnan(retrieval_map(np.zeros((3, 2), np.float16), [0, 0, 1]))


def test_svm_accuracy():
    train_x, test_x = scenes(150, 0)[0].mean(1), scenes(80, 1)[0].mean(1)
    train_y, test_y = scenes(150, 0)[2], scenes(80, 1)[2]
    expected = LinearSVC(C=1, random_state=0).fit(train_x, train_y).score(test_x, test_y)
    assert linear_svm_accuracy(train_x, train_y, test_x, test_y) == expected
    shuffled = np.random.default_rng(0).permutation(train_y)
    assert linear_svm_accuracy(train_x, shuffled, test_x, test_y) < 0.6
    small = (
        train_x / 1e4,
        train_y,
        test_x / 1e4,
        test_y,
    )  # at C = 1 the SVM does not separate the classes
    assert (
        linear_svm_accuracy(*small, costs=(1e-6, 1e7))
        > 0.9
        > linear_svm_accuracy(*small, costs=(1e-6,))
    )


def test_comparison_and_table():
    (x, indicators, y), (test_x, test_indicators, test_y) = scenes(150, 0), scenes(80, 1)
    train = {name: inputs(name, x, indicators) for name in ENCODERS}, y
    test = {name: inputs(name, test_x, test_indicators) for name in ENCODERS}, test_y
    rows = compare_encoders(ENCODERS, train, test)
    assert [(row.encoder, row.size) for row in rows] == list(LENGTHS.items())
    chance = np.mean([(test_y == label).mean() for label in test_y])
    for row in rows:
        assert row.accuracy > 0.8, row
        assert row.retrieval > chance + 0.2, row
        assert row.seconds > 0
    assert not hasattr(ENCODERS["bow"], "kmeans_")
    assert (
        compare_encoders({"bow": ENCODERS["bow"]}, (x, y), (test_x, test_y))[0].accuracy
        == rows[0].accuracy
    )
    with pytest.raises(ValueError, match="nothing for the encoder 'other', only for 'bow'"):
        compare_encoders({"other": ENCODERS["bow"]}, train, test)


def test_table_by_hand():
    assert markdown_table([Row("a|b", 4096, 0.5, 0.12345, 1.26)]).splitlines() == [
        "| encoder | entries | linear SVM accuracy (%) | retrieval mAP (%) | seconds |",
        "|:--|--:|--:|--:|--:|",
        r"| a\|b | 4,096 | 50.0 | 12.3 | 1.3 |",
    ]


def test_bad_arguments_are_named():
    x, y = np.zeros((4, 3)), np.arange(4)
    for arguments, name in (
        ((x[0], y), "database_x"),
        ((x, y[:3]), "database_y"),
        ((x, y, x), "queries_x and queries_y"),
        ((x, y, x[:, :2], y), "queries_x"),
        ((x, y, x, y[:1]), "queries_y"),
        ((x * np.nan, y), "database_x"),
    ):
        with pytest.raises(ValueError, match=name):
            retrieval_map(*arguments)
    with pytest.raises(ValueError, match="test_y"):
        linear_svm_accuracy(x, y, x, y[:2])
    with pytest.raises(ValueError, match="costs"):
        linear_svm_accuracy(x, y, x, y, costs=())

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from inn_automl.core.class_table import MAX_CONFUSION, ClassTable, Mistake


def test_the_table_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    predicted = np.where(rng.random(200) < 0.7, y, rng.integers(0, 3, 200))
    cells, counts = np.unique(np.stack([y, predicted]), axis=1, return_counts=True)
    table = ClassTable.from_counts("abcd", zip(*cells.tolist(), counts.tolist(), strict=True))
    assert np.array(table.confusion).tolist() == confusion_matrix(y, predicted).tolist()
    expected = precision_recall_fscore_support(y, predicted)
    found = [[c.precision, c.recall, c.f1, c.support] for c in table.classes]
    np.testing.assert_allclose(np.array(found).T, expected)
    counts = [one.count for one in table.mistakes]
    assert counts == sorted(counts, reverse=True)


def test_mistakes_are_named_and_a_class_without_samples_has_zeros() -> None:
    table = ClassTable.from_counts(["cat", "dog", "fox"], [(0, 0, 3), (0, 1, 2), (1, 1, 1)])
    assert table.mistakes == (Mistake(true="cat", predicted="dog", count=2),)
    fox = table.classes[2]
    assert (fox.precision, fox.recall, fox.f1, fox.support) == (0.0, 0.0, 0.0, 0)
    assert table.classes[0].f1 == pytest.approx(0.75)


def test_many_classes_have_no_matrix() -> None:
    names = [str(i) for i in range(MAX_CONFUSION + 1)]
    table = ClassTable.from_counts(names, [(i, i, 1) for i in range(len(names))])
    assert table.confusion == () and len(table.classes) == len(names)

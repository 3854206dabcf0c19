"""How well a classifier tells each class, and which classes it mistakes for which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

MAX_CONFUSION = 50
"""Classes of which the whole confusion matrix is kept: more are no picture."""
MAX_MISTAKES = 10


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassScore(_Record):
    """One class of a classifier on a split."""

    name: str
    precision: float
    """Fraction of the samples put into the class that belong there; 0 where there are none."""
    recall: float
    """Fraction of the class's samples that are found; 0 where there are none."""
    f1: float
    """Harmonic mean of precision and recall."""
    support: int
    """Samples of the class."""


class Mistake(_Record):
    """Samples of one class that were put into another."""

    true: str
    predicted: str
    count: int


class ClassTable(_Record):
    """All classes of a classifier on a split."""

    classes: tuple[ClassScore, ...]
    """In the order of the logits."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Samples by class (rows) and predicted class (columns); empty for more than 50 classes."""
    mistakes: tuple[Mistake, ...] = ()
    """The ten most frequent mistakes."""

    @classmethod
    def from_counts(
        cls, names: Sequence[str], counts: Iterable[tuple[int, int, int]]
    ) -> ClassTable:
        """Makes the table.

        Args:
            names: of the classes.
            counts: class, predicted class and number of samples.
        """
        cells = {(true, predicted): num for true, predicted, num in counts}
        support, predicted_as = [0] * len(names), [0] * len(names)
        for (true, predicted), num in cells.items():
            support[true] += num
            predicted_as[predicted] += num
        wrong = sorted((-num, cell) for cell, num in cells.items() if cell[0] != cell[1])
        indices = range(len(names) if len(names) <= MAX_CONFUSION else 0)
        return cls(
            classes=tuple(
                _score(name, cells.get((i, i), 0), support[i], predicted_as[i])
                for i, name in enumerate(names)
            ),
            confusion=tuple(tuple(cells.get((i, j), 0) for j in indices) for i in indices),
            mistakes=tuple(
                Mistake(true=names[true], predicted=names[predicted], count=-num)
                for num, (true, predicted) in wrong[:MAX_MISTAKES]
            ),
        )


def _score(name: str, num_hits: int, support: int, num_predicted: int) -> ClassScore:
    return ClassScore(
        name=name,
        precision=num_hits / num_predicted if num_predicted else 0.0,
        recall=num_hits / support if support else 0.0,
        f1=2 * num_hits / (support + num_predicted) if num_hits else 0.0,
        support=support,
    )

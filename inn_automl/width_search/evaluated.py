"""What an evaluation found of widths: metric value, proper score, and values of samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inn_automl.core.sample_scores import SampleScores


@dataclass(frozen=True)
class Evaluated:
    """The outcome of evaluating widths."""

    metric_value: float
    loss: float = 0.0
    """Mean of a proper score, by which equal metric values are told apart; less is better."""
    samples: SampleScores | None = field(default=None, compare=False, repr=False)
    is_partial: bool = False
    """True if the widths lost a race: the value is estimated from a first share of the split."""

    @classmethod
    def of(cls, value: float | Evaluated) -> Evaluated:
        """The outcome itself, or one of which only the metric value is known."""
        return value if isinstance(value, Evaluated) else cls(float(value))

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        values: dict[str, Any] = {"metric_value": self.metric_value, "loss": self.loss}
        if self.samples is not None:
            values["samples"] = self.samples.encoded()
        if self.is_partial:
            values["is_partial"] = True
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluated:
        """The outcome that `to_dict` wrote.

        Raises:
            ValueError, KeyError, TypeError: it did not write the values.
        """
        samples = values.get("samples")
        return cls(
            float(values["metric_value"]),
            float(values.get("loss", 0.0)),
            None if samples is None else SampleScores.decoded(samples),
            bool(values.get("is_partial", False)),
        )

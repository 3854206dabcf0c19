"""The result of a job: what `result.json` holds and what the API, the trackers and the figures
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from inn_automl.core.class_table import ClassTable
from inn_automl.core.metric import ACCURACY, Metric, get_metric


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LatencySummary(_Record):
    """Measured latency of one model on one device, in milliseconds."""

    p50: float
    p95: float
    p99: float
    ci: tuple[float, float]
    """95 % confidence interval of the latency at `percentile` in a process that is started another
    time.
    """
    comparison_ci: tuple[float, float] | None = None
    """95 % interval for comparison with models measured together with this one: without what
    slowed them all alike.
    """
    percentile: float
    """The percentile that the device's budget names, and that the front's latency axis shows."""
    at_percentile: float
    """Latency at `percentile`."""
    num_samples: int


class WeightsOrigin(_Record):
    """Where the weights come from that a network's training started from."""

    source: str
    """A URL, the name of a file, or what the file says of itself."""
    licence: str
    """SPDX id or name; "unknown: given by the user" where nothing says."""
    sha256: str
    """Of the file, or of the tensors where a library supplied them."""
    notes: tuple[str, ...] = ()
    """What was done to fit them to the network, as sentences."""
    metric_value: float | None = None
    """Validation metric value of the network before training, at full width."""


class FineTuning(_Record):
    """The effect of fine-tuning a model before its export.

    There is none of a model whose validation loss it did not lower: that one is left as it was.
    """

    metric_value_before: float
    """Metric value on the validation split without fine-tuning."""
    loss_before: float
    """The task's loss on the validation split, of the float model. The lower loss decides between
    the fine-tuned model and the other.
    """
    loss_after: float
    steps: int
    """Optimization steps."""
    seconds: float


class FrontPoint(_Record):
    """One discretized model on a device's front."""

    id: str
    widths: dict[str, int]
    precision: str = "fp32"
    """Precision that the model computes in."""
    metric_value: float
    """On the validation split, in the device's `metric`; accuracy is a fraction. The job's
    `optimism` is taken off. It grows along a front but for ties.
    """
    loss: float | None = None
    """Mean of a proper score (log loss, squared error) on the validation split; None if unknown."""
    ties: tuple[str, ...] = ()
    """Ids of the front's points that the same validation samples cannot tell this one's metric
    value apart from.
    """
    test_metric_value: float
    test_metric_value_ci: tuple[float, float]
    """95 % confidence interval; Wilson's for accuracy."""
    test_classes: ClassTable | None = None
    """Of a classification: each class on the test split."""
    latency_ms: LatencySummary
    params: int
    macs: int
    size_bytes: int
    """Size of the ONNX file."""
    peak_memory_bytes: int | None = None
    """Resident memory that loading and running the model added to a process that had the runtime,
    at its peak; None where the device does not tell."""
    process_memory_bytes: int | None = None
    """Resident memory of that whole process at its peak."""
    fine_tuning: FineTuning | None = None
    """The effect of fine-tuning, if the model is fine-tuned; its metric values are those after."""
    bundle: str
    """Path of the bundle, relative to result.json."""

    def __str__(self) -> str:
        """The measurements that points are compared by, without widths."""
        low, high = self.test_metric_value_ci
        latency = self.latency_ms
        return (
            f"{self.id}: metric value {self.metric_value:.4g}, "
            f"test {self.test_metric_value:.4g} ({low:.4g} to {high:.4g}), "
            f"p{latency.percentile:g} {latency.at_percentile:.4g} ms "
            f"({latency.ci[0]:.4g} to {latency.ci[1]:.4g}), "
            f"{self.params:,} params, {self.precision}"
        )


class CostModelErrors(_Record):
    """Errors of a latency cost model on measured widths that it was not fitted on."""

    median_relative: float
    p90_relative: float
    spearman: float
    num_fitted: int
    num_held_out: int
    held_out_ms: tuple[tuple[float, float], ...] = ()
    """Measured and predicted latency in milliseconds of each held-out width."""
    interval: tuple[float, float] | None = None
    """Ratios of measured to predicted latency that 90 % of cases lie between."""


class LayerTime(_Record):
    """The time of one layer of a model, as the runtime accounts for it."""

    name: str
    fraction: float
    """Fraction of the whole model's time. Accounting costs time itself, so fractions are more
    reliable than milliseconds.
    """


class Granularity(_Record):
    """Steps in which a device computes widths, if it does; found from measured widths."""

    suggested: int
    """Multiples of this many channels are no slower than the widths below them; what was searched
    if none is.
    """
    step: int
    """The step that was judged."""
    median_ratio: float
    """Latency of widths rounded up to multiples of `step`, relative to the widths as they were."""
    ratio_bound: float
    """The median ratio of all widths is below this with 90 % confidence."""
    num_pairs: int
    evidence: str
    """Evidence as a part of a sentence."""

    @property
    def sentence(self) -> str:
        """Suggestion and evidence for people."""
        if self.suggested == self.step:
            return f"granularity {self.step} is suggested: {self.evidence}"
        return f"no granularity of {self.step} is suggested: {self.evidence}"


class Candidate(_Record):
    """Widths with what a job knows of them on one device; measured latency only where they were a
    finalist.
    """

    widths: dict[str, int]
    precision: str = "fp32"
    metric_value: float
    """On the validation split, in the job's metric, without the job's `optimism`."""
    loss: float | None = None
    """Mean of a proper score on the validation split; None if unknown."""
    params: int
    macs: int
    predicted_latency_ms: float
    measured: LatencySummary | None = None


class DeviceResult(_Record):
    """One device's front, sorted by latency."""

    name: str
    metric: str = "accuracy"
    """Name of one of `inn_automl.core.metric.METRICS`."""
    recommended: str | None
    """Id of the best front point that meets the bounds by its confidence interval; None if none
    does.
    """
    recommendation: str
    """One sentence: why this point, or how far the best is from the bound."""
    cost_model_errors: CostModelErrors | None
    """Errors of the device's cost model; None if the device could not be measured."""
    num_measured: int | None = None
    """Widths that were measured to predict latency, in this job."""
    granularity: Granularity | None = None
    """Steps in latency; None where too few widths were measured to say."""
    hypervolume: list[float]
    """Dominated hypervolume (metric value times milliseconds, predicted latency) after each batch
    of evaluations.
    """
    reference_point: tuple[float, float]
    """Latency in milliseconds and metric value of the reference point; zeros where nothing was
    searched.
    """
    search_stopped: str
    """Reason of the end: the budget, stalled hypervolume, an exhausted space or an interrupt."""
    environment: dict[str, Any]
    """Environment of the measurement: runtime and version, CPU model, cores, threads."""
    budget: dict[str, Any]
    front: list[FrontPoint]
    layers: list[LayerTime] = []
    """Layers of the recommended point, in the order in which they run; empty if there is none or
    the runtime cannot tell.
    """


class JobResult(_Record):
    """The result of a finished job."""

    job: dict[str, Any]
    """Spec, model family and recipe, metadata of the dataset, training trials, seconds of each
    stage, versions.
    """
    devices: list[DeviceResult]


def metric_of(devices: Sequence[DeviceResult]) -> Metric:
    """The metric of a job's devices; accuracy where there is none."""
    return get_metric(devices[0].metric) if devices else ACCURACY

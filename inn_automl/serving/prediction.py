"""Predictions of a bundle for files, with ONNX Runtime and NumPy.

Files are decoded as datasets are: what the network sees is what it saw in training. Pillow,
soundfile and soxr are imported when the first image or recording is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from inn_automl.core.errors import CorruptFileError, InnAutomlError, InputError
from inn_automl.export.bundle import ONNX, open_bundle
from inn_automl.export.preparation import softmax
from inn_automl.export.records import BundleConfig
from inn_automl.serving.files import ARRAY_SUFFIX, read_array, read_image
from inn_automl.serving.recordings import read_windows

BATCH_SIZE = 16
"""Samples that run together, at most: more gain little on a processor."""
BATCH_BYTES = 64 * 2**20
"""Memory of a batch's input, at most."""
_PREFETCHED = 2
"""Files that are decoded ahead, for each thread that decodes."""
_DECODING_THREADS = 4


@dataclass(frozen=True)
class Prediction:
    """What a model says of a file; or why it could not be read."""

    path: Path
    classes: tuple[str, ...] = ()
    output: np.ndarray | None = None
    """(classes,) probabilities, or (targets,) in their units; None if there is a fault."""
    fault: InnAutomlError | None = None

    @property
    def label(self) -> str | None:
        """The likeliest class; None of a regression, or of a fault."""
        if self.output is None or not self.classes:
            return None
        return self.classes[int(self.output.argmax())]

    def record(self) -> dict[str, Any]:
        """The prediction, ready for JSON."""
        assert self.output is not None
        values = [float(value) for value in self.output]
        if not self.classes:
            return {"path": str(self.path), "targets": values}
        probabilities = dict(zip(self.classes, values, strict=True))
        return {"path": str(self.path), "class": self.label, "probabilities": probabilities}


@dataclass
class _Pending:
    """A file whose samples are not all predicted."""

    path: Path
    total: np.ndarray | None = None
    num_samples: int = 0
    num_waiting: int = 0
    fault: InnAutomlError | None = None
    is_read: bool = False


@dataclass
class _Queue:
    """Files in their order, and the samples of them that wait for a run."""

    files: deque[_Pending] = field(default_factory=deque)
    samples: list[tuple[_Pending, np.ndarray]] = field(default_factory=list)


class Predictor:
    """A bundle that predicts files.

    Args:
        bundle: the ZIP file, or the folder that it was unpacked into.
        threads: within an operator; None for what ONNX Runtime chooses.

    Attributes:
        config: all that the bundle says of its model.

    Raises:
        StorageError: the bundle cannot be read.
        CorruptFileError: it is none, was changed since it was written, or cannot be run here.
        InputError: it is of a model whose output is an image.

    Example:
        >>> from inn_automl import Predictor
        >>> predictor = Predictor("bundle.zip")
        >>> [found.label for found in predictor.predict(["cat.jpg"])]
        ['cat']
    """

    def __init__(self, bundle: str | Path, *, threads: int | None = None) -> None:
        self.config, members = open_bundle(bundle)
        if self.config.task == "super-resolution":
            height, width = self.config.input.shape[1:]
            raise InputError(
                f"{str(bundle)!r} enlarges images of {height} x {width}, which is no prediction of "
                "a class or a number: run its model.onnx (docs/how-to/use-a-bundle.md)."
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings are about speed
        options.intra_op_num_threads = threads or 0
        try:
            self._session = onnxruntime.InferenceSession(
                members[ONNX], options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no public base class
            reason = " ".join(str(error).split())
            raise CorruptFileError(
                f"the model of {str(bundle)!r} cannot be run in ONNX Runtime "
                f"{onnxruntime.__version__} ({reason:.300}): install the version that it was made "
                f"with, {self.config.versions.get('onnxruntime', 'a newer one')}."
            ) from error
        sample_bytes = 4 * int(np.prod(self.config.input.shape))
        self._batch_size = max(1, min(BATCH_SIZE, BATCH_BYTES // sample_bytes))

    def predict(self, paths: Iterable[str | Path]) -> Iterator[Prediction]:
        """Predicts files, in their order. Memory is bounded whatever their number and length.

        - Images: what Pillow decodes; turned upright, in the colours of the training data.
        - Recordings: what libsndfile decodes; resampled and mixed down, in windows that overlap
          by half, whose probabilities are averaged.
        - `.npy`: one sample as in the dataset.

        Args:
            paths: of files.

        Raises:
            InputError: a package that decodes such files is not installed.
        """
        queue = _Queue()
        for pending, samples in self._read(Path(path) for path in paths):
            queue.files.append(pending)
            try:
                for sample in samples:
                    pending.num_waiting += 1
                    queue.samples.append((pending, sample))
                    if len(queue.samples) == self._batch_size:
                        self._run(queue)
            except InnAutomlError as error:
                pending.fault = error
            pending.is_read = True
            yield from self._finished(queue)
        self._run(queue)
        yield from self._finished(queue)

    def _read(self, paths: Iterator[Path]) -> Iterator[tuple[_Pending, Iterator[np.ndarray]]]:
        """Files with their samples; single samples are decoded ahead by threads."""
        waiting: deque[tuple[Path, Future[np.ndarray] | None]] = deque()
        with ThreadPoolExecutor(_DECODING_THREADS, thread_name_prefix="predict") as pool:
            for path in paths:
                future = None if self._is_recording(path) else pool.submit(self._decode, path)
                waiting.append((path, future))
                if len(waiting) > _PREFETCHED * _DECODING_THREADS:
                    yield self._opened(*waiting.popleft())
            while waiting:
                yield self._opened(*waiting.popleft())

    def _opened(
        self, path: Path, future: Future[np.ndarray] | None
    ) -> tuple[_Pending, Iterator[np.ndarray]]:
        if future is not None:
            return _Pending(path), (one.result() for one in (future,))
        assert self.config.preprocessing.audio is not None
        return _Pending(path), read_windows(path, self.config.preprocessing.audio)

    def _is_recording(self, path: Path) -> bool:
        is_array = path.suffix.lower() == ARRAY_SUFFIX
        return self.config.preprocessing.audio is not None and not is_array

    def _decode(self, path: Path) -> np.ndarray:
        if path.suffix.lower() == ARRAY_SUFFIX:
            return read_array(path, self.config.input.shape)
        if self.config.preprocessing.image is None:
            raise InputError(
                f"{str(path)!r} is no .npy file, and the model was trained on arrays: save one "
                "sample with numpy.save."
            )
        return read_image(path, self.config.preprocessing.image)

    def _run(self, queue: _Queue) -> None:
        """Runs the samples that wait, and adds their outputs to those of their files."""
        if not queue.samples:
            return
        batch = np.stack([sample for _, sample in queue.samples]).astype(np.float32, copy=False)
        (output,) = self._session.run(None, {self.config.input.name: batch})
        if self.config.task == "classification":
            output = softmax(output)
        for (pending, _), row in zip(queue.samples, output, strict=True):
            pending.total = row.copy() if pending.total is None else pending.total + row
            pending.num_samples += 1
            pending.num_waiting -= 1
        queue.samples.clear()

    def _finished(self, queue: _Queue) -> Iterator[Prediction]:
        """The predictions at the head of the queue that are complete."""
        while queue.files:
            first = queue.files[0]
            if first.fault is None and (not first.is_read or first.num_waiting):
                return
            queue.files.popleft()
            if first.fault is not None:
                yield Prediction(first.path, fault=first.fault)
            else:
                assert first.total is not None
                mean = first.total / first.num_samples
                yield Prediction(first.path, self.config.classes, mean)


def needed_packages(config: BundleConfig) -> Sequence[str]:
    """Packages that decode what a model takes and that are not installed."""
    preprocessing = config.preprocessing
    modules = {"PIL": "pillow"} if preprocessing.image else {}
    if preprocessing.audio:
        modules = {"soundfile": "soundfile", "soxr": "soxr"}
    return [package for module, package in modules.items() if find_spec(module) is None]

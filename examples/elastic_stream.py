"""A stream of frames whose latency budget changes while it runs.

    python examples/elastic_stream.py elastic.zip [--device NAME] [--samples frames.npz]
    [--fps 60] [--seconds 12]

Frames come at a fixed rate from the array `x` of an .npz file: raw values of the dataset, (N,
*input_shape), as a dataset of your own is stored. Without one they are noise of the model's shape,
which takes as long. First the fastest point serves, to see what frames take here: a processor that
idles between frames needs longer for one than it did when it was measured. Then the budget goes
from roomy to tight and back; the model changes its width and no frame is lost.

Needs the base install only: NumPy and ONNX Runtime.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inn_automl.core.errors import InnAutomlError, InputError
from inn_automl.serving import ElasticModel

NUM_PARTS = 5
"""Looking, and four budgets: all of the same length."""


def load_frames(path: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    """(N, *shape) float32."""
    if path is None:
        return np.random.default_rng(0).uniform(0, 255, (100, *shape)).astype(np.float32)
    with np.load(path, allow_pickle=False) as arrays:
        if "x" not in arrays:
            raise InputError(
                f"{str(path)!r} has no array x: give one with frames of shape {shape}."
            )
        frames = np.asarray(arrays["x"], np.float32)
    if frames.ndim == len(shape):  # images of one channel are often stored without it
        frames = frames[:, None]
    if frames.shape[1:] != shape or not len(frames):
        raise InputError(
            f"x in {str(path)!r} has the shape {frames.shape}: give (N, "
            f"{', '.join(map(str, shape))})."
        )
    return frames


def budgets_ms(model: ElasticModel) -> list[float]:
    """Roomy, middling, tight, roomy again: between what the slowest and the fastest point take,
    here and now.
    """
    latencies = [point.latency[model.device] for point in model.points]
    slow, fast = max(one.ci[1] for one in latencies), min(one.ci[1] for one in latencies)
    return [
        model.slowdown() * ms for ms in (1.5 * slow, (slow * fast) ** 0.5, 1.05 * fast, 1.5 * slow)
    ]


def stream(model: ElasticModel, frames: np.ndarray, fps: float, seconds: float) -> tuple[int, int]:
    """Plays the frames and prints what serves them; the numbers of frames that came and that were
    answered.
    """
    waiting: queue.Queue[np.ndarray | None] = queue.Queue()
    answered: list[int] = []

    def serve() -> None:
        while (frame := waiting.get()) is not None:
            answered.append(int(model.run(frame[None]).argmax()))

    server = threading.Thread(target=serve)
    server.start()
    num_sent, start = 0, time.monotonic()

    def play(until_s: float) -> None:
        nonlocal num_sent
        while (due_s := num_sent / fps) < until_s:
            time.sleep(max(0.0, start + due_s - time.monotonic()))
            waiting.put(frames[num_sent % len(frames)])
            num_sent += 1
        seen = model.observed.get(model.point.id)
        p95 = (
            f"p95 {seen.p95:.3f} ms over its {seen.num_runs} latest frames"
            if seen
            else "no frame yet"
        )
        print(
            f"  {model.point.id} serves, validation accuracy "
            f"{model.point.metric.validation:.3f}, {p95}"
        )

    play(seconds / NUM_PARTS)
    print(f"frames take {model.slowdown():.2f} times what was measured")
    for part, budget_ms in enumerate(budgets_ms(model), start=2):
        print(f"budget {budget_ms:.3f} ms: {model.set_latency(budget_ms, adapt=True)}")
        play(seconds * part / NUM_PARTS)
    waiting.put(None)
    server.join()
    return num_sent, len(answered)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("elastic", type=Path, help="elastic.zip of a job")
    parser.add_argument("--device", help="whose measured latencies decide (default: the only one)")
    parser.add_argument("--samples", type=Path, help="an .npz file with frames as x")
    parser.add_argument("--fps", type=float, default=60.0, help="frames a second (default: 60)")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="length of the stream (default: 12)"
    )
    options = parser.parse_args(arguments)
    if not (options.fps > 0 and options.seconds > 0):
        parser.error("--fps and --seconds must be positive")
    try:
        model = ElasticModel(options.elastic, device=options.device)
        frames = load_frames(options.samples, model.config.input.shape)
    except (InnAutomlError, OSError, ValueError) as error:
        print(f"elastic_stream: {error}", file=sys.stderr)
        return 2
    sent, answered = stream(model, frames, options.fps, options.seconds)
    print(f"{sent} frames came, {answered} were answered, {sent - answered} lost")
    return 0 if sent == answered else 1


if __name__ == "__main__":
    sys.exit(main())

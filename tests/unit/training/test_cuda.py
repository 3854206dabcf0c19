"""Training on a GPU with mixed precision; skipped, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inn_automl.data import load_dataset
from inn_automl.evaluation.candidates import evaluate_widths
from inn_automl.evaluation.onnx_precision import OnnxTemplates
from inn_automl.pipeline.backend import Evaluator
from inn_automl.tasks import Task
from inn_automl.training.recipe import trial_specs
from inn_automl.training.trial import run_trial

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NO GPU: training on CUDA is not tested here"
)


def test_trains_on_a_gpu_and_evaluates_alike_on_the_cpu(tmp_path: Path) -> None:
    dataset = load_dataset("digits")
    candidate = trial_specs("convnet", len(dataset.train), 1, seed=0)[0]
    trained = run_trial(
        candidate,
        "convnet",
        Task.from_dataset(dataset, device="cuda"),
        tmp_path,
        seed=0,
        seconds=600,
        max_epochs=15,
    )
    assert trained.best_score > 0.9
    network = trained.network()  # saved from the GPU, loaded on the CPU
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
    widths = network.uniform_widths(0.5)
    on_gpu = Evaluator.load(
        trained, Task.from_dataset(dataset, device="cuda"), "validation", OnnxTemplates()
    )(widths)
    on_cpu = evaluate_widths(network, widths, Task.from_dataset(dataset))
    assert abs(on_gpu.value - on_cpu.value) * on_cpu.num_samples <= 2.5


def test_checkpoint_of_a_gpu_resumes(tmp_path: Path) -> None:
    dataset = load_dataset("digits")
    candidate = trial_specs("convnet", len(dataset.train), 1, seed=0)[0]

    def stop(report: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(
            candidate,
            "convnet",
            Task.from_dataset(dataset, device="cuda"),
            tmp_path,
            seed=0,
            seconds=600,
            max_epochs=3,
            on_epoch=stop,
        )
    trained = run_trial(
        candidate,
        "convnet",
        Task.from_dataset(dataset, device="cuda"),
        tmp_path,
        seed=0,
        seconds=600,
        max_epochs=3,
    )
    assert [report.epoch for report in trained.history] == [1, 2, 3]

"""The log-mel front end: what it computes, in torch and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from inn_automl.export import export_onnx
from inn_automl.export.fp16 import convert_fp16
from inn_automl.export.quantization import outputs, quantize_onnx
from inn_automl.integral import IntegralNetwork
from inn_automl.models import build, default_family, serving_family
from inn_automl.models.architecture import Architecture
from inn_automl.models.log_mel import FLOOR, LogMel, fourier_kernels, mel_bands

RATE_HZ = 4000


def sound(num: int = 3, seconds: float = 0.5, *, channels: int = 1) -> torch.Tensor:
    return torch.randn(num, channels, int(seconds * RATE_HZ), generator=torch.manual_seed(0))


@pytest.mark.parametrize(
    ("rate_hz", "window", "step", "num_windows", "num_bands"),
    [(8_000, 200, 80, 98, 40), (16_000, 400, 160, 98, 40), (44_100, 1102, 441, 98, 40)],
)
def test_windows_and_bands_follow_the_sample_rate(
    rate_hz: int, window: int, step: int, num_windows: int, num_bands: int
) -> None:
    front = LogMel(rate_hz, rate_hz)
    assert (front.window, front.step) == (window, step)
    assert (front.num_windows, front.num_bands) == (num_windows, num_bands)
    assert front(torch.zeros(2, 3, rate_hz)).shape == (2, 3, num_bands, num_windows)


@pytest.mark.parametrize("length", [1, 2, 7, 24, 96, 1000])
def test_any_signal_without_a_rate_has_a_spectrogram(length: int) -> None:
    front = LogMel(length)
    found = front(torch.randn(2, 1, length))
    assert found.shape == (2, 1, front.num_bands, front.num_windows)
    assert torch.isfinite(found).all()


def test_it_is_the_power_of_windows_by_numpy() -> None:
    x = sound()
    front = LogMel(x.shape[2], RATE_HZ).eval()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(front.window) / front.window)
    hann /= np.sqrt(np.sum(hann**2))
    windows = np.stack(
        [
            x[:, 0, i * front.step : i * front.step + front.window].double().numpy() * hann
            for i in range(front.num_windows)
        ],
        axis=1,
    )
    power = np.abs(np.fft.rfft(windows)) ** 2
    expected = np.log(power @ front.bands.double().numpy().T + FLOOR).transpose(0, 2, 1)
    expected -= expected.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(front(x)[:, 0].numpy(), expected, atol=1e-4)


def test_noise_has_the_power_one_in_each_band_and_a_tone_lies_in_its_own() -> None:
    front = LogMel(40 * RATE_HZ, RATE_HZ).eval()
    noise = torch.matmul(front.bands, front._transformed(sound(1, 40)))
    assert noise.mean((0, 1, 3)).numpy() == pytest.approx(1, abs=0.1)
    time = torch.arange(RATE_HZ) / RATE_HZ
    centres = []
    for hz in (300, 700, 1500):
        tone = torch.sin(2 * torch.pi * hz * time).reshape(1, 1, -1)
        band = int(LogMel(RATE_HZ, RATE_HZ).eval()(tone).mean((0, 1, 3)).argmax())
        weights = mel_bands(front.window, RATE_HZ, 40)[band]
        centres.append(float(weights.argmax()) * RATE_HZ / front.window)
    assert centres == pytest.approx([300, 700, 1500], abs=60)


def test_bands_sum_to_one_and_none_is_empty() -> None:
    for window, rate_hz in ((25, 1000), (200, 8000), (1102, 44_100), (1, 100)):
        bands = mel_bands(window, rate_hz, 40)
        assert bands.sum(1).numpy() == pytest.approx(1, abs=1e-5)
        assert (bands >= 0).all()
    cosines, sines = fourier_kernels(16)
    assert torch.equal(sines[0], torch.zeros(16))
    assert float(cosines[0].square().sum()) == pytest.approx(1)


def test_loudness_makes_no_difference() -> None:
    front = LogMel(2000, RATE_HZ).eval()
    x = sound()
    torch.testing.assert_close(front(x), front(3 * x), atol=1e-3, rtol=0)


def test_masks_are_drawn_in_training_alone_by_torchs_seed() -> None:
    x = sound(8)
    front = LogMel(x.shape[2], RATE_HZ)
    whole = front.eval()(x)
    front.train()
    masked, again, other = ((torch.manual_seed(seed), front(x))[1] for seed in (1, 1, 2))
    assert torch.equal(masked, again)
    assert not torch.equal(masked, other)
    assert torch.equal(masked[masked != 0], whole[masked != 0])
    share = (masked == 0).float().mean((1, 2, 3))
    assert float(share.max()) <= 4 / 5
    assert len(share.unique()) > 4  # each sample has its own


def test_the_coupling_leaves_the_front_end_alone() -> None:
    network = IntegralNetwork(
        build("spectrogram", (2, 2000), 3, sample_rate_hz=RATE_HZ), torch.zeros(2, 2, 2000)
    )
    assert not network.frozen
    assert network.supports_zero_padding
    convolutions = ["stem.0", *(f"blocks.{i}.layers.3" for i in range(5))]
    assert [group.name for group in network.groups] == convolutions
    small = network.discretize(network.smallest_widths)
    for name, buffer in network.module.log_mel.named_buffers():
        assert torch.equal(small.log_mel.get_buffer(name), buffer)
    assert small(sound(channels=2)).shape == (3, 3)
    assert not any("log_mel" in name for name in network.module.state_dict())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    module = build("spectrogram", (1, 2000), 3, depth=3, width=0.25, sample_rate_hz=RATE_HZ)
    module.train()
    for _ in range(20):
        module(sound(16))
    export_onnx(
        module.eval(),
        folder / "fp32.onnx",
        input_shape=(1, 2000),
        mean=np.zeros(1, np.float32),
        std=np.full(1, 0.1, np.float32),
    )
    quantize_onnx(folder / "fp32.onnx", folder / "int8.onnx", 0.1 * sound(16).numpy())
    convert_fp16(folder / "fp32.onnx", folder / "fp16.onnx")
    return folder, module


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 5e-3), ("int8", 0.1)]
)
def test_files_compute_what_torch_does(
    files: tuple[Path, torch.nn.Module], precision: str, tolerance: float
) -> None:
    folder, module = files
    # from 20 dB below the calibration samples to 40 dB above
    x = sound(16) * torch.logspace(-1, 2, 16)[:, None, None]
    (found,) = outputs(folder / f"{precision}.onnx", 0.1 * x.numpy())
    expected = module(x).detach().numpy()
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_the_front_end_is_plain_operators_in_float32(
    files: tuple[Path, torch.nn.Module],
) -> None:
    folder, _ = files
    operators = ["Conv", "Conv", "Mul", "Mul", "Add", "Transpose", "MatMul", "Add", "Log"]
    for precision in ("fp32", "int8", "fp16"):
        graph = onnx.load(folder / f"{precision}.onnx").graph
        found = [node.op_type for node in graph.node]
        log = found.index("Log")
        assert found[log - 8 : log + 1] == operators
        stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for name in ("cosines", "sines", "bands"):
            assert stored[f"body.log_mel.{name}"] == onnx.TensorProto.FLOAT


def test_sound_is_served_by_spectrograms_and_other_signals_are_not() -> None:
    assert default_family("signal", (1, 8000), sample_rate_hz=8000) == "spectrogram"
    assert default_family("signal", (1, 500), sample_rate_hz=8000) == "timeseries"  # 62 ms
    assert serving_family(None, "signal", (1, 8000), 2, sample_rate_hz=8000) == "spectrogram"
    assert serving_family("signal", "signal", (1, 8000), 2, sample_rate_hz=8000) == "signal"
    assert serving_family(None, "signal", (1, 8000), 2) == "timeseries"


def test_an_architecture_remembers_the_rate() -> None:
    architecture = Architecture("spectrogram", (1, 800), 2, 0.5, 3, sample_rate_hz=RATE_HZ)
    assert Architecture.from_dict(architecture.to_dict()) == architecture
    assert architecture.module().log_mel.window == 100

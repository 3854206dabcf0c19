"""Devices: how long a model takes on one, measured and predicted. Nothing in here imports torch.

- `latency`: measures ONNX files, in fresh processes; `timing` is what runs in them
- `runtimes`: what can run a model, one runtime a file
- `confidence`: percentiles of the samples and their confidence intervals
- `features`, `predictor`: latency of widths that were not measured
- `calibration`: which widths to measure for the predictor
"""

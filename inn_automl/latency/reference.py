"""Reference model: a small ONNX file that is timed beside the models, to detect changes of the
machine's speed.

`export.reference` says what is in it, and makes it.
"""

from __future__ import annotations

from pathlib import Path

REFERENCE = Path(__file__).with_name("reference.onnx")
"""Takes (batch, 16, 32, 32) float32 values."""

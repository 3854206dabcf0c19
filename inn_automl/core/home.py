"""The folder of what outlives a job: MLflow's data, measured latencies, the embedded service."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "INN_AUTOML_HOME"
DEFAULT_HOME = "~/.inn_automl"


def home_folder() -> Path:
    """`$INN_AUTOML_HOME`, or `~/.inn_automl`, as an absolute path."""
    return Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).expanduser().absolute()

"""The folders of what outlives a job: MLflow's data, measured latencies, the embedded service; and
decoded samples.
"""

from __future__ import annotations

import os
from pathlib import Path

CACHE_DIR_VARIABLE = "INN_AUTOML_CACHE_DIR"
HOME_VARIABLE = "INN_AUTOML_HOME"
DEFAULT_HOME = "~/.inn_automl"


def cache_root() -> Path:
    """`$INN_AUTOML_CACHE_DIR`, or `cache` in the home folder, as an absolute path."""
    given = os.environ.get(CACHE_DIR_VARIABLE)
    return Path(given).expanduser().absolute() if given else home_folder() / "cache"


def home_folder() -> Path:
    """`$INN_AUTOML_HOME`, or `~/.inn_automl`, as an absolute path."""
    return Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).expanduser().absolute()

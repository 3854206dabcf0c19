"""Datasets: built-in ones and the users' own, as arrays with stratified splits.

Nothing here needs torch; scikit-learn, mlxtend, mnist1d, Pillow and soundfile are imported inside
of the loaders.
"""

from __future__ import annotations

from inn_automl.data.builtin import BUILTINS
from inn_automl.data.dataset import Dataset
from inn_automl.data.load import load_dataset

__all__ = ["BUILTINS", "Dataset", "load_dataset"]

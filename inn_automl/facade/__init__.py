"""The entry points of the library: `inn_automl.search` and what stands beside it.

`jobs` runs searches in this process; `result` is what they return.
"""

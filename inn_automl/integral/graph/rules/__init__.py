"""Propagation rules, one a tensor operation. Importing this package registers them."""

from inn_automl.integral.graph.rules import elementwise, layers, rearranging, reductions

__all__ = ["elementwise", "layers", "rearranging", "reductions"]

"""How each tensor operation couples channel axes. Importing this package registers the rules."""

from inn_automl.integral.graph.rules import elementwise, layers, rearranging, reductions

__all__ = ["elementwise", "layers", "rearranging", "reductions"]

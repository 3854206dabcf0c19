"""The models of other libraries, and of users, that a service trains."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from inn_automl.core.errors import SpecError
from inn_automl.core.spec import AUTO, NONE, JobSpec

SEPARATOR = ":"
"""In the names of models that are no families: `timm:NAME`, `package.module:factory`."""
DEFAULT_ALLOWED = ("timm:*", "torchvision:*")
"""Libraries make networks by name; a factory is code of whoever wrote it."""


def check_allowed(spec: JobSpec, allowed: Sequence[str]) -> None:
    """Refuses a model that the operator does not list, and weights that lie in a user's files.

    Args:
        allowed: patterns of names, like `timm:*` or `our_networks.small:make`.

    Raises:
        SpecError: it is not in the list; says what is.
    """
    model = spec.model or ""
    if SEPARATOR in model and not any(fnmatchcase(model, pattern) for pattern in allowed):
        listed = ", ".join(allowed) or "none but its own families"
        raise SpecError(
            f"model {model!r} is not one that this service trains ({listed}): choose one of them, "
            "or ask its operator to add the name to INN_AUTOML_ALLOWED_MODELS."
        )
    if spec.weights not in (None, AUTO, NONE):
        raise SpecError(
            f"weights = {spec.weights!r:.200}: the service reads no files by path; give auto or "
            "none, or run the job on a machine that has the file (inn-automl run)."
        )

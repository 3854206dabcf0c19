"""Faults of samples: collected, and told together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inn_automl.core.errors import DatasetFormatError

MAX_SHOWN = 10


def without_broken(
    faults: Mapping[int, str] | Sequence[str], total: int, skip_broken: float, where: str
) -> tuple[str, ...]:
    """Notes on the samples that are left out for their faults.

    Args:
        faults: one sentence for each broken sample.
        total: samples, with the broken ones.
        skip_broken: share of the samples that may be left out.

    Raises:
        DatasetFormatError: more are broken.
    """
    texts = list(faults.values()) if isinstance(faults, Mapping) else list(faults)
    if not texts:
        return ()
    shown = texts[:MAX_SHOWN]
    more = f" ({len(texts) - len(shown)} more)" if len(texts) > len(shown) else ""
    if len(texts) <= skip_broken * total and len(texts) < total:
        return (
            f"{len(texts)} of {total} samples were left out, for they cannot be used: "
            f"{' '.join(shown[:3])}" + (f" ({len(texts) - 3} more)" if len(texts) > 3 else ""),
        )
    if len(texts) == 1 and not skip_broken:
        raise DatasetFormatError(texts[0])
    listed = "\n".join(f"  - {text}" for text in shown)
    needed = min(0.5, np.ceil(1000 * len(texts) / total) / 1000)
    remedy = f"Mend or remove them, or leave them out with skip_broken={needed:g} (--skip-broken)."
    if skip_broken:
        remedy = (
            f"skip_broken={skip_broken:g} allows {int(skip_broken * total)}: mend or remove them, "
            "or allow more."
        )
    raise DatasetFormatError(
        f"{len(texts)} of {total} samples of {where} cannot be used:\n{listed}{more}\n{remedy}"
    )

"""What the samples of a split say of a model, one value each, and how a file keeps it."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_KEPT = 16_384
"""Samples that are kept of an evaluation, the first ones: splits are in random order."""
_MAX_LOSS = 6e4
"""Largest loss that a float16 holds."""


@dataclass(frozen=True, eq=False)
class SampleScores:
    """What samples of a split say of one model, in the order of the split.

    Attributes:
        contributions: (n,) float32, whose mean over the whole split is the metric value.
        losses: (n,) float32 of a proper score; less is better.
    """

    contributions: NDArray[np.float32]
    losses: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.contributions)

    @property
    def kept(self) -> SampleScores:
        """The first `MAX_KEPT` samples."""
        return SampleScores(self.contributions[:MAX_KEPT], self.losses[:MAX_KEPT])

    def encoded(self) -> str:
        """The values as text, compressed."""
        import numpy as np  # a result is read without it

        losses = np.minimum(self.losses[:MAX_KEPT], _MAX_LOSS).astype(np.float16)
        data = self.contributions[:MAX_KEPT].astype(np.float32).tobytes() + losses.tobytes()
        return base64.b64encode(zlib.compress(data)).decode()

    @classmethod
    def decoded(cls, text: str) -> SampleScores:
        """The values that `encoded` wrote.

        Raises:
            ValueError: it did not write the text.
        """
        import numpy as np

        try:
            data = zlib.decompress(base64.b64decode(text, validate=True))
        except zlib.error as error:
            raise ValueError(str(error)) from None
        num, rest = divmod(len(data), 6)
        if rest:
            raise ValueError(f"{len(data)} bytes are no samples")
        losses = np.frombuffer(data, np.float16, num, 4 * num).astype(np.float32)
        return cls(np.frombuffer(data, np.float32, num), losses)

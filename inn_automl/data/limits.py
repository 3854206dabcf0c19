"""Limits of the datasets that are loaded. A dataset beyond a limit is refused, never cut short.

A caller with a larger machine may set these attributes of the module before it loads a dataset.
"""

from __future__ import annotations

GIB = 2**30
MIB = 2**20

MAX_DATASET_BYTES = 4 * GIB
"""All samples of a dataset as they lie in memory (uint8 or float32); also the arrays of an .npz
file as stored.
"""

MAX_FILES = 500_000
"""Files and folders of a folder or an archive."""

MAX_FILE_BYTES = 512 * MIB
"""One image or WAV file."""

MAX_EXPANDED_BYTES = 8 * GIB
"""All files of a ZIP archive together, expanded."""

MAX_RATIO = 100
"""Expanded size of a ZIP archive over its own size. Images hardly compress and audio seldom more
than tenfold.
"""

RATIO_FREE_BYTES = 64 * MIB
"""Archives that expand to less than this may have any ratio: a few seconds of silence compress a
thousandfold.
"""

MAX_IMAGE_PIXELS = 2**26
"""Height times width of one image, checked before it is decoded (8,192 x 8,192)."""

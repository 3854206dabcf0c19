"""Limits of the datasets that are loaded. A dataset beyond a limit is refused, never cut short.

A caller with a larger machine may set these attributes of the module before it loads a dataset.
"""

from __future__ import annotations

GIB = 2**30
MIB = 2**20

MAX_DATASET_BYTES = 4 * GIB
"""All samples of a dataset that is read into memory (uint8 or float32): the arrays of an .npz
file, pairs of images. What goes through the cache is bounded by its disk.
"""

MAX_FILES = 5_000_000
"""Files and folders of a folder or an archive."""

MAX_FILE_BYTES = 512 * MIB
"""One image or recording."""

MAX_EXPANDED_BYTES = 1024 * GIB
"""All files of an archive together, expanded."""

MAX_RATIO = 100
"""Expanded size of an archive over its own size. Images hardly compress and audio seldom more
than tenfold.
"""

RATIO_FREE_BYTES = 64 * MIB
"""Archives that expand to less than this may have any ratio: a few seconds of silence compress a
thousandfold.
"""

MAX_IMAGE_PIXELS = 2**26
"""Height times width of one image, checked before it is decoded (8,192 x 8,192)."""

FOLLOW_PATHS = True
"""Whether a manifest may name files on disk. Of what a stranger uploaded it may not: they could be
anybody's.
"""

"""ZIP files of a few members, stored uncompressed: the same contents give the same bytes."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Collection, Mapping

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a ZIP can hold


def pack(contents: Mapping[str, bytes]) -> bytes:
    """The bytes of a ZIP file."""
    archive = io.BytesIO()
    # Stored, not compressed: weights hardly shrink, and compressed bytes would depend on the
    # version of zlib.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, on whatever system this runs
            entry.external_attr = 0o100644 << 16
            file.writestr(entry, data)
    return archive.getvalue()


def unpack(data: bytes, names: Collection[str] | None = None) -> dict[str, bytes]:
    """The members of a ZIP file that `pack` made.

    Other names could lead out of a folder, and compressed members expand without bound.

    Args:
        names: of all members; None where their number is part of the content: the caller checks
            them.

    Raises:
        ValueError: it is none, or holds other members than `names`; says why.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = {e.filename for e in entries} if names is None else names
            strange = [e.filename for e in entries if e.filename not in names]
            if (
                strange
                or len(entries) != len(names)
                or any(e.compress_type != zipfile.ZIP_STORED for e in entries)
            ):
                found = ", ".join(strange) or "other members, or compressed ones"
                *first, last = names
                wanted = f"{', '.join(first)} and {last}"
                raise ValueError(f"it should hold {wanted}, uncompressed, and holds {found}")
            return {name: archive.read(name) for name in names}
    # damaged archives also raise RuntimeError, KeyError, struct.error, ...
    except Exception as error:
        raise ValueError(str(error)) from error


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()

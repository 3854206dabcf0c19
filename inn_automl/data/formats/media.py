"""What files hold: images or recordings."""

from __future__ import annotations

from collections.abc import Sequence

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.catalog import Media
from inn_automl.data.files import DatasetFile
from inn_automl.data.images import SUFFIXES as IMAGE_SUFFIXES

AUDIO_SUFFIXES = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64"}
    | {".w64", ".wav", ".wave"}
)
_AUDIO_STARTS = (b"fLaC", b"OggS", b"ID3", b"RF64", b"FORM", b"caff", b".snd", b"\xff\xfb")


def media_of(entries: Sequence[DatasetFile], where: str) -> Media:
    """What `entries` hold, by their names, or by the content of the first where names do not say.

    Raises:
        DatasetFormatError: both images and recordings.
    """
    image = next((entry for entry in entries if entry.suffix in IMAGE_SUFFIXES), None)
    audio = next((entry for entry in entries if entry.suffix in AUDIO_SUFFIXES), None)
    if image is not None and audio is not None:
        raise DatasetFormatError(
            f"{where} mixes images ({image.path!r}) and recordings ({audio.path!r}): keep one kind."
        )
    if image is not None or not entries:
        return "image"
    if audio is not None:
        return "audio"
    with entries[0].content.open() as stream:
        return media_of_content(stream.read(12))


def media_of_content(start: bytes) -> Media:
    """What content that begins with `start` (12 bytes) is; an image, unless it is a recording."""
    is_wave = start[:4] == b"RIFF" and start[8:12] == b"WAVE"
    return "audio" if is_wave or start.startswith(_AUDIO_STARTS) else "image"

"""Spoken words as WAV files of one second, by the synthetic voices of espeak-ng (Debian's package
of that name).

Every recording differs: speed, pitch, loudness, where in the second the word begins, and the noise
behind it. The same set is the same files on every machine with the same espeak-ng.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE_HZ = 16_000
PER_TRAINING_VOICE, PER_TEST_VOICE = 22, 20
"""Recordings of each word by each voice."""
SNR_DB = (10.0, 40.0)
LOUDNESS_DB = (-26.0, -10.0)
WORDS_PER_MINUTE = (120, 230)
PITCH = (25, 75)  # of 99


@dataclass(frozen=True)
class WordSet:
    """Words, and the voices that speak them: a dialect and a variant of espeak-ng."""

    words: tuple[str, ...]
    training_voices: tuple[str, ...]
    test_voices: tuple[str, ...]


REPORTED = WordSet(
    ("yes", "no", "up", "down", "left", "right", "stop", "go"),
    (
        "en-us+m1",
        "en-gb+m2",
        "en-us+m3",
        "en-gb-scotland+m4",
        "en-us+m5",
        "en-gb+f1",
        "en-us+f2",
        "en-gb-x-rp+f3",
        "en-us+Andy",
        "en-gb+Annie",
    ),
    ("en-us+m7", "en-gb+f4", "en-gb-scotland+m6"),
)
"""What is reported on. Nothing was chosen by it."""

TUNING = WordSet(
    ("one", "two", "three", "four", "cat", "house", "bird", "marvin"),
    (
        "en-us+adam",
        "en-gb+Alex",
        "en-us+Alicia",
        "en-gb-scotland+Andrea",
        "en-us+linda",
        "en-gb+Mike",
        "en-us+paul",
        "en-gb-x-rp+belinda",
        "en-us+steph",
        "en-gb+john",
    ),
    ("en-us+max", "en-gb+anika", "en-us+Lee"),
)
"""Other words by other voices, to choose settings by."""


def write_words(folder: Path, words: WordSet) -> None:
    """Writes `train/WORD/VOICE-NN.wav` and `test/WORD/VOICE-NN.wav`, unless they are there.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
    """
    done = folder / ".complete"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for split, voices, count in (
        ("train", words.training_voices, PER_TRAINING_VOICE),
        ("test", words.test_voices, PER_TEST_VOICE),
    ):
        for voice in voices:
            for word in words.words:
                target = folder / split / word
                target.mkdir(parents=True, exist_ok=True)
                for number in range(count):
                    rng = np.random.default_rng([number, *f"{word} {voice}".encode()])
                    name = f"{voice.replace('+', '_')}-{number:02d}.wav"
                    soundfile.write(target / name, recording(word, voice, rng), RATE_HZ)
    done.touch()


def recording(word: str, voice: str, rng: np.random.Generator) -> np.ndarray:
    """One second of a word: (RATE_HZ,) float32."""
    speech = spoken(word, voice, int(rng.integers(*WORDS_PER_MINUTE)), int(rng.integers(*PITCH)))
    speech = speech[:RATE_HZ] / np.sqrt(np.mean(np.square(speech)))
    sound = np.zeros(RATE_HZ)
    start = int(rng.integers(RATE_HZ - len(speech) + 1))
    sound[start : start + len(speech)] = speech
    noise = rng.standard_normal(RATE_HZ)
    if rng.random() < 0.5:  # brown: rooms and streets are louder at low frequencies
        noise = np.cumsum(noise)
        noise -= np.convolve(noise, np.ones(401) / 401, "same")
        noise /= noise.std()
    sound += noise * 10 ** (-rng.uniform(*SNR_DB) / 20)
    sound *= 10 ** (rng.uniform(*LOUDNESS_DB) / 20)
    return np.clip(sound, -1, 1).astype(np.float32)


def spoken(word: str, voice: str, words_per_minute: int, pitch: int) -> np.ndarray:
    """A word without the silence around it, at `RATE_HZ`."""
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch)]
    wav = subprocess.run([*command, word], capture_output=True, check=True).stdout
    sound, rate = soundfile.read(io.BytesIO(wav))
    sound = soxr.resample(sound, rate, RATE_HZ)
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    trimmed: np.ndarray = sound[loud[0] : loud[-1] + 1]
    return trimmed

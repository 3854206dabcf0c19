from __future__ import annotations

import numpy as np
import pytest

from inn_automl.core.sample_scores import MAX_KEPT, SampleScores


def drawn(num: int) -> SampleScores:
    rng = np.random.default_rng(0)
    correct = (rng.random(num) < 0.9).astype(np.float32)
    return SampleScores(correct, rng.exponential(size=num).astype(np.float32))


def test_values_survive_a_file() -> None:
    scores = drawn(450)
    text = scores.encoded()
    assert len(text) < 3 * 450  # a line of a file, and one bit a sample for right and wrong
    read = SampleScores.decoded(text)
    np.testing.assert_array_equal(read.contributions, scores.contributions)
    np.testing.assert_allclose(read.losses, scores.losses, rtol=1e-3, atol=1e-6)


def test_the_first_samples_of_a_large_split_are_kept() -> None:
    scores = drawn(MAX_KEPT + 5)
    assert len(SampleScores.decoded(scores.encoded())) == len(scores.kept) == MAX_KEPT


def test_losses_beyond_a_float16_are_its_largest() -> None:
    scores = SampleScores(np.zeros(1, np.float32), np.array([1e9], np.float32))
    assert 5e4 < SampleScores.decoded(scores.encoded()).losses[0] < np.inf


@pytest.mark.parametrize("text", ["not base64!", "AAAA"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SampleScores.decoded(text)

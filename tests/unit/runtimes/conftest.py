from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

_BACKENDS = (torch.backends.cudnn, torch.backends.cuda.matmul)


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    threads, tf32 = torch.get_num_threads(), [backend.allow_tf32 for backend in _BACKENDS]
    yield
    torch.set_num_threads(threads)
    for backend, value in zip(_BACKENDS, tf32, strict=True):
        backend.allow_tf32 = value

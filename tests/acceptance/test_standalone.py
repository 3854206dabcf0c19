"""The embedded stack, whose supervisor dies."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.acceptance.conftest import Stack, eventually


@pytest.mark.slow
def test_what_a_killed_supervisor_left_behind_is_ended(stack: Stack) -> None:
    stack.start()
    before = stack.processes()
    os.kill(before["supervisor"], signal.SIGKILL)
    eventually(
        lambda: not psutil.pid_exists(before["supervisor"]) or is_zombie(before["supervisor"]),
        "still there",
    )
    assert stack.left()
    stack.start()
    after = stack.processes()
    assert not set(before.values()) & set(after.values())
    assert not [pid for pid in before.values() if psutil.pid_exists(pid) and not is_zombie(pid)]


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

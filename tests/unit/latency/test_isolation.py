from __future__ import annotations

import os
from pathlib import Path

import pytest

from inn_automl.core.errors import MeasurementError
from inn_automl.latency import isolation
from inn_automl.latency.isolation import run_timing


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Has a shell script run in place of the timing process; gives the path that it can write its
    id to.
    """

    def install(script: str) -> Path:
        executable = tmp_path / "python"
        pid = tmp_path / "pid"
        executable.write_text(f"#!/bin/sh\necho $$ > {pid}\n{script}\n")
        executable.chmod(0o755)
        monkeypatch.setattr(isolation.sys, "executable", str(executable))
        return pid

    return install


def run(stalled_s=60.0, on_event=lambda event: None):
    return run_timing({"models": {}}, stalled_s=stalled_s, on_event=on_event)


def is_gone(pid: Path) -> bool:
    try:
        os.kill(int(pid.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test_answers_with_the_last_line(child):
    child("""echo '{"event": "timing", "model": "m"}'; echo '{"event": "done", "blocks": {}}'""")
    assert run() == {"event": "done", "blocks": {}}


def test_reads_a_last_line_of_any_length(child):
    numbers = "yes 1, | head -n 50000 | tr -d '\\n'"
    child(
        """echo '{"event": "timing"}'; """
        f"""printf '{{"event": "done", "ns": ['; {numbers}; echo '1]}}'"""
    )
    assert len(run()["ns"]) == 50_001


def test_reports_events(child):
    child(
        """echo '{"event": "timing", "model": "m", "fraction": 0.5}'; sleep 0.5; """
        """echo '{"event": "done"}'"""
    )
    events = []
    run(on_event=events.append)
    assert {"event": "timing", "model": "m", "fraction": 0.5} in events


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -9 $$", "while timing it the process was killed, often for want of memory"),
        (
            "kill -SEGV $$",
            "while timing it the process crashed with SIGSEGV: check that the runtime",
        ),
        (
            "echo 'bad luck' >&2; exit 3",
            r"while timing it the process ended with exit code 3 \(bad luck\)",
        ),
        ("exit 0", "while timing it the process ended with exit code 0"),
    ],
)
def test_death_names_the_model_and_a_remedy(child, script, message):
    child(f"""echo '{{"event": "timing", "model": "net 7"}}'; {script}""")
    with pytest.raises(MeasurementError, match=f"model 'net 7' cannot be measured: {message}"):
        run()


def test_failure_that_the_process_explains(child):
    child("""echo '{"event": "failed", "model": "m", "message": "it is broken: mend it."}'""")
    with pytest.raises(
        MeasurementError, match=r"^model 'm' cannot be measured: it is broken: mend it\.$"
    ):
        run()


def test_death_before_the_first_model(child):
    child("exit 1")
    with pytest.raises(
        MeasurementError, match="nothing can be measured: before the first model was loaded"
    ):
        run()


def test_stalled_process_is_killed(child):
    pid = child("""echo '{"event": "loading", "model": "m"}'; exec sleep 100""")
    with pytest.raises(
        MeasurementError, match=r"while loading it the process did nothing for 0\.3 s"
    ):
        run(stalled_s=0.3)
    assert is_gone(pid)


def test_process_does_not_outlive_an_interrupt(child):
    pid = child("""echo '{"event": "loading", "model": "m"}'; exec sleep 100""")

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_event=interrupt)
    assert is_gone(pid)

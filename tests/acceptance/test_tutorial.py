"""The tutorial of the service, typed into a shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from inn_automl.export import read_bundle
from tests.acceptance.conftest import PROGRAM, Stack

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "service.md"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_through_the_service(stack: Stack, tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (budget,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "budget.yaml").write_text(budget, encoding="utf-8")
    commands = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    path = f"{PROGRAM.parent}:{stack.environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env={**stack.environment, "PATH": path, "INN_AUTOML_HOME": str(stack.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=840,
    )
    assert done.returncode == 0, done.stdout + done.stderr + stack.logs()
    for name in ("model.zip", "half.zip"):
        assert read_bundle(tmp_path / name).dataset.name == "mnist1d"

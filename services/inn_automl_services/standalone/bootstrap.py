"""Makes what a first start lacks: secrets, the database's schema, and the keys in it.

Runs as a process of its own, so that the supervisor stays small:
`python -m inn_automl_services.standalone.bootstrap FOLDER`.
"""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import asdict
from pathlib import Path

from inn_automl.api.access import NewProject, Role
from inn_automl.core.storage import replacing
from inn_automl_services.coordinator.db.migrate import upgrade
from inn_automl_services.coordinator.db.session import Database, make_engine
from inn_automl_services.coordinator.keys import SECRET_PREFIX
from inn_automl_services.coordinator.projects import repository
from inn_automl_services.coordinator.projects.service import create_project, ensure_project_and_keys
from inn_automl_services.standalone.state_dir import Secrets, StateDir

PROJECT = "default"
MAX_RUNNING_JOBS = 1000
"""Running jobs of the project; the stack's own limit is smaller."""


def bootstrap(state_dir: StateDir) -> Secrets:
    """Makes the secrets, migrates the database and makes the keys of the secrets."""
    known = state_dir.read_secrets() or _write(state_dir)
    upgrade(state_dir.database_url)
    database = Database(make_engine(state_dir.database_url))
    try:
        with database.write() as session:
            if repository.find_project(session, PROJECT) is None:
                create_project(session, NewProject(name=PROJECT, max_running_jobs=MAX_RUNNING_JOBS))
        ensure_project_and_keys(
            database, PROJECT, {Role.ADMIN: known.user_key, Role.AGENT: known.agent_key}
        )
    finally:
        database.engine.dispose()
    return known


def _write(state_dir: StateDir) -> Secrets:
    """New secrets, in a file that only its owner may read from the start."""
    user_key, agent_key = (SECRET_PREFIX + secrets.token_urlsafe(32) for _ in range(2))
    made = Secrets(user_key, agent_key, ray_token=secrets.token_hex(32))
    content = json.dumps(asdict(made))
    with replacing(state_dir.secrets, mode=0o600) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return made


if __name__ == "__main__":
    bootstrap(StateDir(Path(sys.argv[1])))

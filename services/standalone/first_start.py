"""The database's schema and the keys of a home, made where they are missing. Run as a process of its own, so that the
supervisor stays small: `python -m services.standalone.first_start HOME`."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from inn_automl.api.access import Role
from services.coordinator.access import create_key, hash_secret
from services.coordinator.db.ids import new_id
from services.coordinator.db.migrate import upgrade
from services.coordinator.db.session import Database, make_engine, now
from services.coordinator.db.tables import ApiKey, Project
from services.standalone.home import Home, Secrets

PROJECT = "default"
MAX_RUNNING_JOBS = 1000
"""Of the project; the stack's own limit is smaller."""


def prepare(home: Home) -> Secrets:
    """Migrates the database and sees to it that the secrets' keys are in it."""
    upgrade(home.database_url)
    database = Database(make_engine(home.database_url))
    known = home.read_secrets()
    try:
        with database.write() as session:
            if known and _are_valid(session, known):
                return known
            project_id = _project(session)
            _, user_key = create_key(session, project_id=project_id, name="up-admin", role=Role.ADMIN)
            _, agent_key = create_key(session, project_id=project_id, name="up-agent", role=Role.AGENT)
            made = Secrets(user_key, agent_key, known.ray_token if known else secrets.token_hex(32))
            _write(home, made)  # before the commit: keys that nobody knows would be worth nothing
        return made
    finally:
        database.engine.dispose()


def _are_valid(session: Session, known: Secrets) -> bool:
    hashes = [hash_secret(known.user_key), hash_secret(known.agent_key)]
    query = select(ApiKey.hash).where(ApiKey.hash.in_(hashes), ApiKey.revoked_at.is_(None))
    return len(session.scalars(query).all()) == len(hashes)


def _project(session: Session) -> str:
    found = session.scalar(select(Project.id).where(Project.name == PROJECT))
    if found is not None:
        return found
    made = Project(
        id=new_id("prj"),
        name=PROJECT,
        max_running_jobs=MAX_RUNNING_JOBS,
        max_gpu_hours=None,
        gpu_s=0.0,
        created_at=now(),
    )
    session.add(made)
    session.flush()
    return made.id


def _write(home: Home, made: Secrets) -> None:
    partial = home.secrets.with_name(f".{home.secrets.name}.part")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(made), file)
    os.replace(partial, home.secrets)


if __name__ == "__main__":
    prepare(Home(Path(sys.argv[1])))

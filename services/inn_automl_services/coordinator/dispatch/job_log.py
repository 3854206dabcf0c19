"""The log of a job in the storage: what each of its attempts printed, one after the other."""

from __future__ import annotations

from inn_automl.core.object_store import ObjectStore

MAX_RUN_CHARACTERS = 4 * 2**20
"""Characters that are stored of one attempt's log; the rest stays with Ray."""
_BEGIN = "=== run "


def log_path(job_id: str) -> str:
    return f"jobs/{job_id}/log.txt"


def keep_log(store: ObjectStore, job_id: str, submission_id: str, printed: str) -> None:
    """Puts what a run has printed so far into its job's log; a run's part only grows, others' stay
    as they are.

    Raises:
        StorageError: the storage is away or full.
    """
    if not printed:
        return
    if len(printed) > MAX_RUN_CHARACTERS:
        printed = f"{printed[:MAX_RUN_CHARACTERS]}\n(and more, which is not stored)\n"
    path = log_path(job_id)
    before = store.read(path).decode("utf-8", "replace") if store.exists(path) else ""
    parts = _parts(before)
    text = "".join(f"{line}\n" for line in printed.splitlines())
    if len(text) > len(parts.get(submission_id, "")):
        parts[submission_id] = text
        store.write(
            path,
            "".join(f"{_BEGIN}{name}\n{part}" for name, part in parts.items()).encode(
                "utf-8", "replace"
            ),
        )


def _parts(log: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    name = ""
    for line in log.splitlines(keepends=True):
        if line.startswith(_BEGIN):
            name = line.removeprefix(_BEGIN).strip()
            parts.setdefault(name, "")
        elif name:
            parts[name] += line
    return parts

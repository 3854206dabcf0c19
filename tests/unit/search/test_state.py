from __future__ import annotations

import errno
import json
import os

import pytest
from optuna import create_study
from optuna.trial import TrialState

from inn_automl.core.errors import CorruptFileError, JobDirectoryError, StorageError
from inn_automl.search.state import (
    Evaluation,
    EvaluationTable,
    drop_torn_line,
    exclusive,
    open_journal,
)

GROUPS = {"a": 8, "b": 4}


def fill(path):
    with EvaluationTable(path, GROUPS) as table:
        table.begin_batch("laptop", 2)
        table.add({"a": 4, "b": 2}, 0.5, "laptop")
        table.add({"a": 8, "b": 2}, 0.75, "laptop")
        table.finish_batch("laptop")
        table.begin_batch("phone", 3)
        table.add({"a": 8, "b": 4}, 0.1 + 0.2, "phone")
    return table


def test_a_table_reads_back_what_was_written(tmp_path):
    written = fill(tmp_path / "table.jsonl")
    with EvaluationTable(tmp_path / "table.jsonl", GROUPS) as table:
        assert table.evaluations == written.evaluations
        assert table.evaluations[2] == Evaluation(
            {"a": 8, "b": 4}, 0.1 + 0.2, batch=1, device="phone"
        )
        assert table.finished == ["laptop"] and table.batch == 1
        assert table.begun == ("phone", 3) and table.num_missing == 2
        table.finish_batch("phone")
        assert table.begun is None and table.num_missing == 0


def test_a_table_cut_at_any_byte_keeps_every_whole_line(tmp_path):
    whole = tmp_path / "table.jsonl"
    written = fill(whole).evaluations
    content, path = whole.read_bytes(), tmp_path / "cut.jsonl"
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        lines = content[:length].count(b"\n")
        with EvaluationTable(path, GROUPS) as table:
            num = len(table.evaluations)
            assert table.evaluations == written[:num]
            begun = len(table.finished) + (table.begun is not None)
            assert num + begun + len(table.finished) == max(lines - 1, 0)
            table.add({"a": 5, "b": 3}, 0.25, "phone")
        with EvaluationTable(path, GROUPS) as table:
            assert [one.metric_value for one in table.evaluations] == [
                *(one.metric_value for one in written[:num]),
                0.25,
            ]


@pytest.mark.parametrize(
    "line", [b"not json", b"[1]", b'{"batch": 0}', b'{"batch": 0, "widths": 3, "metric_value": 1}']
)
def test_a_spoilt_line_is_named(tmp_path, line):
    path = tmp_path / "table.jsonl"
    fill(path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[3:]]) + b"\n")
    with pytest.raises(CorruptFileError, match="line 3"):
        EvaluationTable(path, GROUPS)


def test_a_table_of_another_network_is_refused(tmp_path):
    fill(tmp_path / "table.jsonl")
    with pytest.raises(JobDirectoryError, match="another output folder"):
        EvaluationTable(tmp_path / "table.jsonl", {"a": 8, "b": 5})


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another"), exclusive(tmp_path / "file"):
        pass
    with pytest.raises(StorageError, match="check the folder"):
        EvaluationTable(tmp_path / "missing" / "table.jsonl", GROUPS)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full stands in for a full disk")
def test_a_full_disk_is_a_storage_error(tmp_path):
    with (
        EvaluationTable(tmp_path / "table.jsonl", GROUPS) as table,
        open("/dev/full", "ab", buffering=0) as full,
    ):
        table._file, whole = full, table._file
        with pytest.raises(StorageError, match="No space left"):
            table.add({"a": 4, "b": 2}, 0.5, "laptop")
        assert table.evaluations == []
        table._file = whole
        table.add({"a": 4, "b": 2}, 0.5, "laptop")
        assert len(table.evaluations) == 1


def test_a_full_disk_is_a_storage_error_for_studies_too(tmp_path, monkeypatch):
    study = create_study(study_name="laptop", storage=open_journal(tmp_path / "studies.journal"))

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        study.ask()


def test_one_process_at_a_time(tmp_path):
    second = pytest.raises(JobDirectoryError, match="another process")
    with exclusive(tmp_path / "state"), second, exclusive(tmp_path / "state"):
        pass
    with exclusive(tmp_path / "state"):
        pass


def test_a_journal_cut_at_any_byte_opens(tmp_path):
    study = create_study(study_name="laptop", storage=open_journal(tmp_path / "studies.journal"))
    for value in (1.0, 2.0):
        trial = study.ask()
        trial.suggest_int("a", 1, 9)
        study.tell(trial, value)
    content = (tmp_path / "studies.journal").read_bytes()
    for length in range(0, len(content), 7):
        path = tmp_path / f"{length}.journal"
        path.write_bytes(content[:length])
        again = create_study(study_name="laptop", storage=open_journal(path), load_if_exists=True)
        done = [trial.value for trial in again.trials if trial.state == TrialState.COMPLETE]
        assert done == [1.0, 2.0][: len(done)]
        again.tell(again.ask(), 3.0)
        assert open_journal(path).get_all_trials(again._study_id)[-1].value == 3.0
        assert not path.with_suffix(".corrupt").exists()


def test_a_spoilt_journal_is_set_aside(tmp_path):
    path = tmp_path / "studies.journal"
    create_study(study_name="laptop", storage=open_journal(path))
    path.write_bytes(b"spoilt\n" + path.read_bytes())
    assert open_journal(path).get_all_studies() == []
    assert path.with_suffix(".corrupt").read_bytes().startswith(b"spoilt")


def test_lines_that_end_are_left_alone(tmp_path):
    path = tmp_path / "lines"
    drop_torn_line(path)
    assert not path.exists()
    path.write_text(json.dumps({"a": 1}) + "\n")
    drop_torn_line(path)
    assert json.loads(path.read_text()) == {"a": 1}

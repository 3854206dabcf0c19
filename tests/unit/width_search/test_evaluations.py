from __future__ import annotations

import json
import os

import pytest

from inn_automl.core.errors import CorruptFileError, JobDirectoryError, StorageError
from inn_automl.width_search.evaluations import (
    Evaluation,
    EvaluationTable,
    ProposedBatch,
    drop_torn_line,
)
from inn_automl.width_search.initial_design import InitialDesign

GROUPS = {"a": 8, "b": 4}
DESIGN = InitialDesign(((4, 2), (8, 2)), slowest_ms=0.1 + 0.2)
PROPOSED = [{"a": 8, "b": 4}, {"a": 7, "b": 4}, {"a": 6, "b": 4}]


def fill(path):
    with EvaluationTable(path, GROUPS) as table:
        table.set_initial_design("laptop", DESIGN)
        table.begin_batch("laptop", [{"a": 4, "b": 2}, {"a": 8, "b": 2}])
        table.add({"a": 4, "b": 2}, 0.5, "laptop")
        table.add({"a": 8, "b": 2}, 0.75, "laptop")
        table.finish_batch("laptop")
        table.begin_batch("phone", PROPOSED)
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
        assert table.begun == ProposedBatch("phone", tuple(PROPOSED)) and table.num_missing == 2
        assert table.missing == PROPOSED[1:]
        assert table.initial_designs == {"laptop": DESIGN}
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
            designs = len(table.initial_designs)
            assert num + begun + len(table.finished) + designs == max(lines - 1, 0)
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


def test_lines_that_end_are_left_alone(tmp_path):
    path = tmp_path / "lines"
    drop_torn_line(path)
    assert not path.exists()
    path.write_text(json.dumps({"a": 1}) + "\n")
    drop_torn_line(path)
    assert json.loads(path.read_text()) == {"a": 1}

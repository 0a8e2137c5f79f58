from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9.output import tables
from mission9.output.tables import TableWriter, read_group, row_groups


def test_a_flipped_bit_in_a_page_is_an_error_and_no_other_number(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    table = pa.table({"feature": pa.array(range(1000), pa.float32())})
    with TableWriter(file, table.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(table)
    assert [group.equals(table) for group in row_groups(file)] == [True]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert not pq.read_table(file).equals(table)  # which is why there are checksums
    with pytest.raises(OSError, match="CRC checksum"):
        list(row_groups(file))


def write_groups(file: Path, groups: int, first: int = 0) -> None:
    schema = pa.schema([("number", pa.int64())])
    with TableWriter(file, schema) as writer:
        for number in range(first, first + groups):
            writer.write_table(pa.table({"number": [number]}, schema))


def test_a_footer_is_read_once_for_many_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plan.parquet"
    write_groups(file, 2000)
    read: list[int] = []

    class Counting(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            read.append(len(data))
            return data

    monkeypatch.setattr(tables, "open_to_read", lambda path: Counting(io.FileIO(path)))
    footer = pq.read_metadata(file).serialized_size
    assert [read_group(file, number)["number"].to_pylist() for number in (0, 7, 1999)] == [[0], [7], [1999]]
    assert footer > 100_000
    assert sum(read) < 2 * footer


def test_a_file_that_takes_the_place_of_another_has_its_own_footer(tmp_path: Path) -> None:
    file, new = tmp_path / "plan.parquet", tmp_path / "new.parquet"
    write_groups(file, 3)
    assert read_group(file, 2)["number"].to_pylist() == [2]
    write_groups(new, 9, first=100)
    new.replace(file)
    assert read_group(file, 8)["number"].to_pylist() == [108]

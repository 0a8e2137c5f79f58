from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9.tables import TableWriter, row_groups


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

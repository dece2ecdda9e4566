"""A damaged Parquet footer is refused; it never ends the process, as pyarrow's own look at it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from export.training.lerobot.footer import MAGIC, column_claims

MUTATES = """
import sys
from pathlib import Path
from export.training.lerobot.errors import DatasetError
from export.training.lerobot.rows import read_parquet
path = Path(sys.argv[1])
whole = path.read_bytes()
length = int.from_bytes(whole[-8:-4], "little")
read = refused = 0
for at in range(len(whole) - 8 - length, len(whole)):
    for value in (0x00, 0x29, 0xFF):
        path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        try:
            read_parquet(path, most_rows=1000)
            read += 1
        except DatasetError as error:
            refused += 1
            assert "\\n" not in str(error) and len(str(error)) <= 1000
print(read, refused)
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = pa.table({"task_index": [0, 1, 2], "task": ["a", "b", "c"], "action": [[0.0, 1.0], [], [2.0]]})
    pq.write_table(rows, tmp_path / "table.parquet", row_group_size=2)
    return tmp_path / "table.parquet"


def test_no_changed_byte_of_a_footer_ends_the_process(table: Path) -> None:
    told = subprocess.run([sys.executable, "-c", MUTATES, str(table)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    read, refused = map(int, told.stdout.split())
    assert read > 100 and refused > 1000


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("rows", [0, 1, 20, 700])
def test_it_agrees_with_pyarrow(compression: str, rows: int, tmp_path: Path) -> None:
    columns = {
        "index": list(range(rows)),
        "text": [f"text {row % 7}" for row in range(rows)],
        "list": [[float(row)] * (row % 5) for row in range(rows)],
        "struct": [{"yes": row % 2 == 0, "more": {"number": row}} for row in range(rows)],
    }
    types = {
        "index": pa.int64(),
        "text": pa.string(),
        "list": pa.list_(pa.float32()),
        "struct": pa.struct({"yes": pa.bool_(), "more": pa.struct({"number": pa.int32()})}),
    }
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns, pa.schema(types)), path, row_group_size=64, compression=compression)
    described = pq.ParquetFile(path).metadata
    theirs = [
        described.row_group(group).column(number)
        for group in range(described.num_row_groups)
        for number in range(described.num_columns)
    ]
    assert [(one.path, one.values, one.unpacked_bytes) for one in column_claims(path)] == [
        (one.path_in_schema, one.num_values, one.total_uncompressed_size) for one in theirs
    ]


def test_a_footer_that_is_cut_short_or_too_long_is_none(table: Path) -> None:
    whole = table.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    footer = whole[-8 - length : -8]
    for kept in range(0, length, 7):
        table.write_bytes(MAGIC + footer[:kept] + kept.to_bytes(4, "little") + MAGIC)
        with pytest.raises(ValueError):
            column_claims(table)
    for claimed in (length + len(whole), 2**32 - 1):
        table.write_bytes(whole[:-8] + claimed.to_bytes(4, "little") + MAGIC)
        with pytest.raises(ValueError, match="no footer"):
            column_claims(table)


@pytest.mark.parametrize("nested", [b"\x1c", b"\x19\x1c"], ids=["structs", "lists of structs"])
def test_a_footer_without_end_is_refused(nested: bytes, tmp_path: Path) -> None:
    footer = nested * 100_000
    path = tmp_path / "deep.parquet"
    path.write_bytes(MAGIC + footer + len(footer).to_bytes(4, "little") + MAGIC)
    with pytest.raises(ValueError, match="too deep"):
        column_claims(path)

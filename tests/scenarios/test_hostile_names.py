"""A tree of names that break programs, through the command line: every file a row, every label as it was."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mission9.cli import main
from mission9.storage.local.names import to_text

pytestmark = pytest.mark.slow

# What a bare container has, and Python's two ways out of it closed.
BARE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

NFC, NFD = (unicodedata.normalize(form, "pêche").encode() for form in ("NFC", "NFD"))

# As names of folders and, with an ending, of files.
NAMES: list[bytes] = [
    b"a b", b" leading", b"trailing ", b"  ", b"a\nb", b"\n", b"a\rb", b"a\r\nb", b"\tb", b"\x1b[31mred", b"\x07",
    b"\x7f", b'"', b'"quoted"', b"'", b"it's", b"a,b", b",", b"a;b", b"=1+1", b"+1", b"-1", b"-rf", b"--help",
    b"@SUM(A1)", b"'=x", b"%", b"%41", b"100% jus", b"a=b", b"label=a", b"a:b", b"C:", b"a\\b", b"\\", b"\\xff",
    b"\\n", b"#1", b"?", b"*", b"[ab]", b"{a}", b"{0}", b"%s", b"$(touch pwned)", b"`id`", b"$HOME", b"~", b"&", b"|",
    b"<b>", b"a>b", b"!", b"^", b"_under", b"__", b".hidden", b"...", b"..a", b"a.", b"1", b"01", b"007", b"1e3",
    b"0x1F", b"2024-01-01", b"true", b"NULL", b"null", b"nan", b"None", b"CON", b"nul", b"apple", b"Apple", b"APPLE",
    NFC, NFD, "🍑".encode(), "👩‍🔬".encode(), "日本語".encode(), "עברית".encode(), "\u202egnp".encode(),
    "\u2028".encode(), "\ufeffbom".encode(), "\u0130".encode(), "ß".encode(), "\ufb01".encode(), b"caf\xe9",
    b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x8d", b"a\xffb\\xff", b"part-00000.parquet", b"_SUCCESS",
    b"_temporary", b"x._COPYING_", b"Thumbs", b"s3a", b"file",
]  # fmt: skip

FEW = [b"a\nb", b"=1+1", b"a,b", NFC, NFD, b"caf\xe9"]  # for a folder that a link leads to

LABEL_LONGEST, LABEL_TOO_LONG = b"x" * 249, b"y" * 255  # with "label=" before it, a name of 255 bytes, and of more


class Hostile:
    """A tree; `rows` has every path that must be listed, with split, label and how it ends."""

    skipped: ClassVar = {"(link)": 3, "(none)": 1, ".txt": 2, "._*": 1}

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, tuple[str, str, str]] = {}

    def put(self, *parts: bytes, end: str = "picture", make: Callable[[str], object] | None = None) -> None:
        path = os.path.join(os.fsencode(self.root), *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        (make or write(picture(len(self.rows))))(os.fsdecode(path))
        split = {b"Training": "Training", b"Test": "Test"}.get(parts[0], "all")
        self.rows[to_text(b"/".join(parts))] = split, to_text(parts[-2]), end


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    top = tmp_path_factory.mktemp("hostile")
    tree = Hostile(top / "entrée 🍑")
    put_names(tree)
    put_what_is_no_file(tree)
    put_links(tree, top / "outside")
    (tree.root / "LICENSE").write_text("beside the splits")
    (tree.root / "Training" / "few" / "notes\n.TXT").write_text("no image")  # found once more by a link
    (tree.root / "Training" / "no images at all").mkdir()
    return tree


def put_names(tree: Hostile) -> None:
    for name in [*NAMES, LABEL_LONGEST]:
        tree.put(b"Training", name, b"1.png")
        tree.put(b"Training", b"names", name + b".png")
    for name in (b"z" * 251 + b".png", b"UPPER.PNG", b"without extension"):
        tree.put(b"Training", b"names", name)
    (tree.root / "Training/names/._mac.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    for label in (LABEL_TOO_LONG, b":" * 100, b"__HIVE_DEFAULT_PARTITION__"):
        tree.put(b"Training", label, b"1.png", end="unusable_label")
    for place in (
        [b"Training"],
        [b"Test"],
        [b"Test", b"apple"],
        [b"elsewhere", b"apple"],
        [b"Training", *[b"deep"] * 60],
    ):
        tree.put(*place, b"1.png")


def put_what_is_no_file(tree: Hostile) -> None:
    tree.put(b"Training", b"empty files", b"0.png", make=write(b""), end="empty")
    tree.put(b"Training", b"no files", b"fifo.png", make=os.mkfifo, end="unreadable")
    tree.put(b"Training", b"no files", b"socket.png", make=bound_socket, end="unreadable")
    if os.geteuid() == 0:
        tree.put(b"Training", b"no files", b"device.png", make=zero_device, end="unreadable")


def put_links(tree: Hostile, outside: Path) -> None:
    tree.put(b"Training", b"links", b"1.png")
    for target, end in (("1.png", "picture"), ("gone.png", "vanished"), ("itself.png", "unreadable")):
        name = "itself.png" if end == "unreadable" else f"to {target}"
        tree.put(b"Training", b"links", name.encode(), make=partial(os.symlink, target), end=end)
    for few in FEW:
        tree.put(b"Training", b"few", few + b".png")
        tree.rows[to_text(b"Training/linked/" + few + b".png")] = "Training", "linked", "picture"
    os.symlink("few", tree.root / "Training" / "linked")
    outside.mkdir()
    write(picture(0))(str(outside / "1.png"))
    links = tree.root / "Training" / "links"
    (links / "loop").symlink_to(tree.root / "Training")
    (links / "out of it").symlink_to(outside)
    (links / "out.png").symlink_to(outside / "1.png")


def write(data: bytes) -> Callable[[str], object]:
    return lambda path: Path(path).write_bytes(data)


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def bound_socket(path: str) -> None:
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as unix:
        os.chdir(os.path.dirname(path))  # an address of a socket is at most 107 bytes
        unix.bind(os.path.basename(path))
        os.chdir(here)


def zero_device(path: str) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero, which would never end


def words(root: Path, output: Path, *options: str) -> list[str]:
    command = ["run", "--input", str(root), "--output", str(output), "--weights", "demo", "--components", "3"]
    return [*command, "--max-reject-rate", "0.5", "--plain-csv", *options]


def ended_well(*command: str, bare: bool) -> None:
    """A command that a person starts."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
    environment |= BARE if bare else {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-m", "mission9", *command], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def files_of(output: Path) -> dict[str, bytes]:
    """The files of a result by name, but for the page, and without what tells of its times."""
    files = (Path(folder) / name for folder, _, names in os.walk(output) for name in names if "_state" not in folder)
    content = {os.fsdecode(file.relative_to(output)): file.read_bytes() for file in files if file.name != "report.html"}
    return content | {"run.json": b""}


@pytest.fixture(scope="module")
def result(hostile: Hostile, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    output = tmp_path_factory.mktemp("result") / "résultats 🍑"
    assert main(words(hostile.root, output)) == 0
    assert main(["verify", str(output)]) == 0
    assert (output / "report.html").exists()
    return output, files_of(output)


def test_every_file_is_a_row_or_counted(hostile: Hostile, result: tuple[Path, dict[str, bytes]]) -> None:
    rows, skipped = hostile.rows, hostile.skipped
    assert len(NAMES) > 60
    features, rejects = (pq.read_table(result[0] / name).to_pylist() for name in ("features", "rejects"))
    found = [(row["path"], (row["split"], row["label"], "picture")) for row in features]
    found += [(row["path"], (row["split"], row["label"], row["reason"])) for row in rejects]
    assert len(found) == len(rows)
    assert dict(found) == rows
    # Opening a socket, or a device without a driver, would have failed in other words.
    assert {row["message"] for row in rejects if row["label"] == "no files"} == {"not a regular file"}
    report = json.loads((result[0] / "run.json").read_bytes())
    assert report["skipped"] == skipped
    listed, featured, rejected = (
        sum(split[what] for split in report["splits"].values()) for what in ("listed", "featured", "rejected")
    )
    assert report["found"] == listed + sum(skipped.values())
    assert listed == featured + rejected == len(rows)


@pytest.mark.parametrize("split", ["Training", "Test", "all"])
def test_every_reader_gives_the_labels_back(
    split: str, hostile: Hostile, result: tuple[Path, dict[str, bytes]]
) -> None:
    wanted = {path: label for path, (where, label, end) in hostile.rows.items() if (where, end) == (split, "picture")}
    folder = result[0] / f"{split.lower()}_pca"
    lines = result[0] / f"{split.lower()}_pca_csv" / "part-00000.csv"
    text = ds.partitioning(pa.schema([("label", pa.string())]), flavor="hive")
    frame = pd.read_parquet(folder, partitioning=text)
    assert dict(zip(frame["path"], frame["label"], strict=True)) == wanted
    query = "select path, label from read_parquet(?, hive_partitioning=true, hive_types_autocast=false)"
    assert dict(duckdb.connect().execute(query, [f"{folder}/*/*"]).fetchall()) == wanted
    table = pl.read_parquet(f"{folder}/", hive_schema={"label": pl.String})
    assert dict(zip(table["path"], table["label"], strict=True)) == wanted

    with lines.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"]: row["label"] for row in rows} == wanted
    assert len(rows) == len(wanted)
    frame = pd.read_csv(lines, dtype={"label": str}, keep_default_na=False)
    assert dict(zip(frame["path"], frame["label"], strict=True)) == wanted
    table = pl.read_csv(lines, schema_overrides={"label": pl.String})
    assert dict(zip(table["path"], table["label"], strict=True)) == wanted
    query = "select path, label from read_csv(?, all_varchar=true)"
    assert dict(duckdb.connect().execute(query, [str(lines)]).fetchall()) == wanted


def test_a_bare_container_gives_the_very_same(
    hostile: Hostile, result: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    output = tmp_path / "résultats 🍑"
    ended_well(*words(hostile.root, output, "--runner", "local", "--workers", "1"), bare=True)
    ended_well("verify", str(output), bare=True)
    assert (output / "report.html").exists()
    assert files_of(output) == result[1]


@pytest.mark.spark
@pytest.mark.parametrize("bare", [False, True], ids=["usual", "bare"])
def test_spark_gives_the_very_same(
    bare: bool,
    hostile: Hostile,
    result: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    output = tmp_path / "résultats 🍑"
    options = ["--runner", "spark", "--master", "local[1]", "--driver-memory", "2g", "--no-report"]
    ended_well(*words(hostile.root, output, *options), bare=bare)
    assert main(["verify", str(output)]) == 0
    assert files_of(output) == result[1]

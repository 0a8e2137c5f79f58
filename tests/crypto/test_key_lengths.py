"""Pseudonyms and encrypted tables, compared with those of other implementations for the same keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mission9.crypto.parquet import encrypted_by
from mission9.crypto.pseudonyms import Pseudonyms
from mission9.output.tables import TableWriter

KEY = b"planted-secret-of-this-test"

# Of a data key that is wrapped, by AES-GCM: a nonce before it and a tag behind it.
NONCE_BYTES, TAG_BYTES = 12, 16


def test_a_pseudonym_is_the_first_half_of_what_openssl_makes_of_path_and_key() -> None:
    # printf 'Training/a/1.jpg' | openssl dgst -sha256 -hmac planted-secret-of-this-test
    assert Pseudonyms(KEY).name("Training/a/1.jpg") == "e85618b0c071811577208da7668fcd59"
    path = "Training/Pêche 🍑/1.jpg"
    assert Pseudonyms(KEY).name(path) == hmac.new(KEY, path.encode(), hashlib.sha256).hexdigest()[:32]


def test_the_data_keys_of_encrypted_tables_have_256_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'mission9[encryption]'")
    monkeypatch.setenv("TABLES_KEY", KEY.decode())
    rows = pa.table({"path": ["a.jpg"]})
    with encrypted_by("env:TABLES_KEY"), TableWriter(tmp_path / "table.parquet", rows.schema) as table:
        table.write_table(rows)
    (told,) = set(re.findall(rb'\{"keyMaterialType".*?\}', (tmp_path / "table.parquet").read_bytes()))
    material: dict[str, Any] = json.loads(told)
    wrapped = base64.b64decode(material["wrappedDEK"])
    assert len(wrapped) - NONCE_BYTES - TAG_BYTES == 256 // 8

"""What a bucket holds, on this machine: copies of results and models, and the mirror that a run works in."""

from __future__ import annotations

from pathlib import Path

import pytest

from mission9.errors import StorageError
from mission9.places import model_here
from mission9.s3.address import Address
from mission9.s3.output import open_bucket_output
from tests.s3.conftest import Bucket


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("way", ["/{0}/owned", "../../../../../../owned", "a//owned", "./owned", "a\n/owned"])
def test_no_key_leads_out_of_the_folder_that_a_prefix_is_copied_to(bucket: Bucket, tmp_path: Path, way: str) -> None:
    way = way.format(tmp_path)
    bucket.put("m/pca_model/pca.json", b"{}")
    bucket.put_odd(f"m/pca_model/{way}", b"theirs")
    with pytest.raises(StorageError, match=r"pca_model holds .*owned', a key with .*delete it"):
        model_here(f"{bucket}/m/pca_model")
    bucket.put_odd(f"out/_state/int8/{way}", b"theirs")
    with (
        pytest.raises(StorageError, match=r"int8 holds .*owned', a key with .*delete it"),
        open_bucket_output(Address(bucket.name, "out"), overwrite=False),
    ):
        pass
    assert not [name for name in files_below(tmp_path) if "owned" in name]

"""The commands that protect data: audit metadata, and erase images."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveFloat

from mission9.cli.app import PROTECT, app
from mission9.cli.console import say
from mission9.config import Flag
from mission9.errors import ConfigError

if TYPE_CHECKING:
    from mission9.erasure.receipt import Receipt
    from mission9.erasure.selection import ErasureRequest

_Json = Annotated[bool, Parameter(name="--json", negative="")]
_Input = Annotated[str | None, Parameter("--input")]


@app.command(group=PROTECT)
def audit(place: str, /, *, all_files: Flag = False, json_: _Json = False) -> int:
    """Count the images that carry EXIF, GPS, XMP, IPTC or comments.

    It decodes no pixels and prints no names.

    ```bash
    mission9 audit photos
    mission9 audit s3://my-bucket/photos --json
    ```

    Parameters
    ----------
    place:
        Folder of images, or s3://BUCKET/PREFIX.
    all_files:
        Read every file, not only those with the extension of an image.
    json_:
        Print the counts as JSON.
    """
    from mission9.privacy.metadata_audit import audit_images

    found = audit_images(place, all_files=all_files)
    if json_:
        print(json.dumps(asdict(found)))
        return 0
    for kind, count in found.kinds.items():
        say(f"{kind:<11}{count:>9,}")
    say(f"{'unreadable':<11}{found.unreadable:>9,}")
    say(f"{found.carriers:,} of {found.images:,} images carry metadata; none of it gets into a result")
    return 0


@app.command(group=PROTECT)
def erase(
    output: str = "data/Results",
    /,
    *,
    ids: Path | None = None,
    older_than: PositiveFloat | None = None,
    source: Flag = False,
    input_: _Input = None,
    pseudonymise: str | None = None,
) -> None:
    """Erase images from a result: features, rejects, scores, CSV, model, report and state.

    It refits the model without them, searches every remaining file for their names, and records a receipt without
    names. Later runs into this output exclude them. To resume a killed erasure, rerun the same command.

    ```bash
    mission9 erase results --ids ids.txt
    mission9 erase results --ids ids.txt --source --input photos
    mission9 erase results --older-than 365 --source
    ```

    Parameters
    ----------
    output:
        The output of an earlier run: a folder, or s3://BUCKET/PREFIX.
    ids:
        File with a path of the tables a line.
    older_than:
        Erase the images whose file or object was last changed more than this many days ago, instead of --ids.
    source:
        Also delete the image files, or all versions of the objects.
    input_:
        Where the images are now; by default where the run read them.
    pseudonymise:
        Key of the pseudonyms in the tables, env:NAME or a file; ids are paths or pseudonyms then.
    """
    from mission9.crypto.pseudonyms import Pseudonyms
    from mission9.erasure.ids import read_ids
    from mission9.erasure.selection import ErasureRequest

    pseudonyms = Pseudonyms.of(pseudonymise)
    if (ids is None) == (older_than is None):
        raise ConfigError("mission9 erase needs --ids or --older-than, and not both (mission9 erase --help)")
    if ids is not None:
        request = ErasureRequest("erase", read_ids(ids), ids, with_source=source, input=input_, pseudonyms=pseudonyms)
    else:
        request = ErasureRequest(
            "retain", days=older_than or 0, with_source=source, input=input_, pseudonyms=pseudonyms
        )
    _carry_out(output, request)


def _carry_out(output: str, request: ErasureRequest) -> None:
    from mission9.erasure.erase import erase as carry_out

    receipt = carry_out(output, request)
    if receipt is None:
        say(f"nothing to do: {output} holds nothing of them{', nor does the input' if request.with_source else ''}")
    else:
        _print_receipt(receipt, output)


def _print_receipt(receipt: Receipt, output: str) -> None:
    say(f"{len(receipt.images):,} images erased, {receipt.rows_of_shards:,} rows of shards")
    say(f"result: {receipt.result['images']:,} images; model: {receipt.result['model']}")
    deleted = ", ".join(f"{receipt.source[what]:,} {what}" for what in ("files", "versions") if receipt.source[what])
    say(f"source: {deleted or 'as it was'}")
    if linked := receipt.source["linked"]:
        say(f"{linked:,} of these files are elsewhere too, as hard links or behind a link: delete them there")
    say(f"old versions deleted: {receipt.old_versions:,}; unfinished uploads: {receipt.unfinished_uploads:,}")
    say(f"searched {receipt.searched_files:,} files: no name is left")
    if receipt.searched_by_hash_alone:
        count = f"{receipt.searched_by_hash_alone:,} images of an erasure that was cut short"
        say(f"{count} were known by their hashes alone: those were searched in all columns of paths")
    say(f"not reached: {'; '.join(receipt.not_reached)}")
    say(f"receipt: {output.rstrip('/')}/{receipt.file}")

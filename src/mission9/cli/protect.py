"""The commands that protect data: what images carry, and what a result must not keep."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from mission9.cli.app import PROTECT, app
from mission9.cli.console import say
from mission9.config import Flag

_Json = Annotated[bool, Parameter(name="--json", negative="")]


@app.command(group=PROTECT)
def audit(place: str, /, *, all_files: Flag = False, json_: _Json = False) -> None:
    """Count the images that carry EXIF, GPS, XMP, IPTC or comments; pixels are not decoded, and no name is told.

    ```bash
    mission9 audit photos
    mission9 audit s3://my-bucket/photos --json
    ```

    Parameters
    ----------
    place:
        Folder of images, or s3://BUCKET/PREFIX.
    all_files:
        Look at every file, not just those that look like images by name.
    json_:
        Print the counts as JSON.
    """
    from mission9.audit_images import audit_images

    found = audit_images(place, all_files=all_files)
    if json_:
        print(json.dumps(asdict(found)))
        return
    for kind, count in found.kinds.items():
        say(f"{kind:<11}{count:>9,}")
    say(f"{'unreadable':<11}{found.unreadable:>9,}")
    say(f"{found.carriers:,} of {found.images:,} images carry metadata; none of it gets into a result")

"""The files of a pack, and the test that tells a pack from a folder of images."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from mission9.errors import InputError, StorageError
from mission9.schema import LISTING, REJECTS_TABLE
from mission9.storage.file_store import file_store
from mission9.storage.local.untrusted import MIB

MANIFEST = "mission9-pack.json"
INDEX, IMAGES, REJECTS = "index", "images", "rejects"
STATE = "_state"
LOCK = f"{STATE}/lock.json"
PLAN_FILE, DONE = f"{STATE}/plan.parquet", f"{STATE}/done"

FORMAT = 1
MAX_MANIFEST_BYTES = 64 * MIB  # parts of a petabyte

# What a part holds. `modified` is nanoseconds since 1970, as in listings; `bytes` is the image.
PART = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            *(("path", pa.string()), ("split", pa.string()), ("label", pa.string()), ("bytes", pa.binary())),
            *(("sha256", pa.string()), ("size", pa.int64()), ("modified", pa.int64())),
        )
    ]
)

# A listing with the part that holds each image.
PACK_PLAN = pa.schema([*LISTING, ("part", pa.string())])

# A listing with where each image is: `at` that byte of its part, `length` long, in the page that begins at `page` and
# is `page_bytes` long; or the reason and the message of why it is not.
INDEX_TABLE = pa.schema(
    [
        *PACK_PLAN,
        ("sha256", pa.string()),
        ("at", pa.int64()),
        ("length", pa.int64()),
        ("page", pa.int64()),
        ("page_bytes", pa.int64()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)
PACK_REJECTS = REJECTS_TABLE

# In the metadata of an index, the first path of each row group.
FIRST_PATHS = b"mission9.first_paths"

# What parts, indexes and rejects are called: nothing else in their folders is ours.
FILE_NAME = re.compile(r"[0-9a-f]{32}(?:\.index)?\.parquet")

# What a file is called until it is whole; of one that was killed it stays.
PARTIAL_NAME = re.compile(rf"\.(?:{re.escape(MANIFEST)}|plan\.parquet|{FILE_NAME.pattern})\.[0-9a-f]{{12}}")

_KEY = re.compile(rf"({INDEX}/[0-9a-f]{{32}}\.index|{REJECTS}/[0-9a-f]{{32}})\.parquet")
_INDEX_FILE = re.compile(rf"(.*)/({INDEX}/[0-9a-f]{{32}}\.index\.parquet)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The file that says which files are the pack: `index` its rows, `parts` the length of each part by its key."""

    index: str
    rejects: str
    images: int
    rejected: int
    total_bytes: int
    splits: dict[str, int]
    skipped: dict[str, int]
    parts: dict[str, int]
    source: str = ""
    format: int = FORMAT
    made_by: str = ""

    def to_json(self) -> bytes:
        """The manifest as a file, with a checksum of itself."""
        facts = asdict(self)
        return (json.dumps({**facts, "check": _check(facts)}, indent=2, ensure_ascii=False) + "\n").encode()

    @staticmethod
    def of(content: bytes, place: str) -> Manifest:
        """The manifest that a file holds.

        Raises:
            InputError: it is damaged, or of a later version.
        """
        try:
            facts: dict[str, Any] = json.loads(content)
            check = facts.pop("check")
            if facts["format"] != FORMAT:
                raise InputError(f"the pack {place} is of format {facts['format']}: read it with a newer mission9")
            if check != _check(facts):
                raise ValueError("its checksum is another")
            if not (_KEY.fullmatch(facts["index"]) and _KEY.fullmatch(facts["rejects"])):
                raise ValueError("it names no index")
            return Manifest(**facts)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{place}/{MANIFEST} is damaged, and without it the pack cannot be read: pack the images again"
            ) from error


def part_file(key: str) -> str:
    """Return where a part is, below the pack."""
    return f"{IMAGES}/{key}.parquet"


def done_file(key: str) -> str:
    """Return where the rows of the index are of a part that is done."""
    return f"{DONE}/{key}.parquet"


def is_index(root: str) -> bool:
    """Tell whether a root names the index of a pack."""
    return _INDEX_FILE.fullmatch(root) is not None


def split_index(root: str) -> tuple[str, str]:
    """The place of a pack, and the name of its index below that, of a root that names both."""
    found = _INDEX_FILE.fullmatch(root)
    if found is None:
        raise ValueError(f"{root} names no index of a pack")
    return found[1], found[2]


def find_index(root: str) -> str | None:
    """The root that names the index of the pack in a folder or below a prefix; None if there is no pack.

    Raises:
        InputError: there is one that is damaged, or a bucket does not say.
    """
    content = _manifest_content(root)
    if content is None:
        return None
    return f"{root}/{Manifest.of(content, root).index}"


def _manifest_content(root: str) -> bytes | None:
    store = file_store(root)
    try:
        content = store.read(MANIFEST, MAX_MANIFEST_BYTES)
        is_begun = content is None and not store.has(MANIFEST) and store.has(PLAN_FILE)
    except StorageError as error:  # what is wrong is with the prefix, which is what the user knows of
        raise InputError(str(error).replace(f"/{MANIFEST}:", ":")) from error.__cause__
    except OSError as error:
        raise InputError(f"{root}/{MANIFEST} cannot be read: {error.strerror}; mend its permissions") from error
    except ValueError:  # no manifest is so large: a file of others
        return None
    if is_begun:
        raise InputError(f"the pack in {root} is not finished: give the command mission9 pack again that makes it")
    return content


def _check(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

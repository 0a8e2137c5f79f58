"""The files of a pack, and the test that distinguishes a pack from a folder of images."""

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

# The columns of a part. `modified` is in nanoseconds since 1970, as in listings; `bytes` is the image.
PART = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            *(("path", pa.string()), ("split", pa.string()), ("label", pa.string()), ("bytes", pa.binary())),
            *(("sha256", pa.string()), ("size", pa.int64()), ("modified", pa.int64())),
        )
    ]
)

# A listing, with the part of each image.
PACK_PLAN = pa.schema([*LISTING, ("part", pa.string())])

# A listing, with the place of each image: at byte `at` of its part, `length` bytes long, in the page that begins at
# `page` and has `page_bytes`; or the reason and the message of its reject.
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

# Stored in an index's metadata: the first path of each row group.
FIRST_PATHS = b"mission9.first_paths"

# The names of parts, indexes and rejects: other files in their folders are not mission9's.
FILE_NAME = re.compile(r"[0-9a-f]{32}(?:\.index)?\.parquet")

# The name of a partial file, which a killed writer leaves behind.
PARTIAL_NAME = re.compile(rf"\.(?:{re.escape(MANIFEST)}|plan\.parquet|{FILE_NAME.pattern})\.[0-9a-f]{{12}}")

_KEY = re.compile(rf"({INDEX}/[0-9a-f]{{32}}\.index|{REJECTS}/[0-9a-f]{{32}})\.parquet")
_INDEX_FILE = re.compile(rf"(.*)/({INDEX}/[0-9a-f]{{32}}\.index\.parquet)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The file that lists the pack's files: `index` holds its rows, `parts` the length of each part by its key."""

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
        """Parse a manifest.

        Raises:
            InputError: it is damaged, or of a later version.
        """
        try:
            facts: dict[str, Any] = json.loads(content)
            check = facts.pop("check")
            if facts["format"] != FORMAT:
                raise InputError(f"the pack {place} has the format {facts['format']}: read it with a newer mission9")
            if check != _check(facts):
                raise ValueError("its checksum is wrong")
            if not (_KEY.fullmatch(facts["index"]) and _KEY.fullmatch(facts["rejects"])):
                raise ValueError("it names no index")
            return Manifest(**facts)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{place}/{MANIFEST} is damaged, so the pack cannot be read: pack the images again"
            ) from error


def part_file(key: str) -> str:
    """The path of a part, below the pack."""
    return f"{IMAGES}/{key}.parquet"


def done_file(key: str) -> str:
    """The path of the index rows of a finished part."""
    return f"{DONE}/{key}.parquet"


def is_index(root: str) -> bool:
    """Return True if a root names the index of a pack."""
    return _INDEX_FILE.fullmatch(root) is not None


def split_index(root: str) -> tuple[str, str]:
    """The place of a pack, and the path of its index below it, from a root that names both."""
    found = _INDEX_FILE.fullmatch(root)
    if found is None:
        raise ValueError(f"{root} names no index of a pack")
    return found[1], found[2]


def find_index(root: str) -> str | None:
    """The root that names the index of the pack in a folder or below a prefix; None if there is no pack.

    Raises:
        InputError: the pack is damaged, or a bucket does not answer.
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
    except StorageError as error:  # report the prefix, which is the name that the user knows
        raise InputError(str(error).replace(f"/{MANIFEST}:", ":")) from error.__cause__
    except OSError as error:
        raise InputError(f"{root}/{MANIFEST} cannot be read: {error.strerror}; fix its permissions") from error
    except ValueError:  # too large for a manifest: a foreign file
        return None
    if is_begun:
        raise InputError(f"the pack in {root} is not finished: rerun the mission9 pack command that makes it")
    return content


def _check(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

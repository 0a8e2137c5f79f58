"""Images in an fsspec store: listed folder by folder, read through pooled connections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, NoReturn, TypeVar

from mission9.concurrency.prefetch import REMOTE, PrefetchLimits
from mission9.concurrency.watchdog import progress
from mission9.errors import ConfigError, ImageError, InputError, SetupError
from mission9.redact import shown
from mission9.schema import listed_time
from mission9.sources.fsspec_connections import ANSWERS, Connections
from mission9.sources.layout import RESULTS, STATE, Layout, tools_folder
from mission9.sources.listing import Listing, ListingCounts, Row, has_image_name, in_batches, skipped_as
from mission9.storage.local.names import from_text, to_text
from mission9.storage.retry import retry

Got = TypeVar("Got")

# For a connection used by one thread at a time: servers limit their number.
_FEW = PrefetchLimits(4, 64, 8 * 1024 * 1024)

_NO_HADOOP = (
    "needs Hadoop's library libhdfs (HADOOP_HOME) in Python: install it, or read through Spark with mission9 pack "
    "--reader spark"
)

# Stores that return a byte range in one request; opening a file there requests its size first.
_BY_RANGE = {"gs", "gcs", "abfs", "abfss", "az"}

_TRIES, _PAUSE = 4, 0.5
_PIECE = 16 * 1024 * 1024

# The backends' names for the modification time.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "modify", "created")
_SECOND = 1_000_000_000


class _Item(NamedTuple):
    """A file or folder in a folder; a folder's `name` ends with a slash, so that it sorts like the paths below it."""

    name: bytes
    place: str
    size: int
    modified: int
    is_link: bool


class FsspecSource:
    """The images below an fsspec URL."""

    def __init__(self, root: str) -> None:
        self._root = root
        fs, self._top = self._connected()
        self._connections = Connections(fs, lambda: self._connected()[0])
        self.ahead = REMOTE if self._connections.are_shared else _FEW

    def check(self) -> None:
        """Do nothing: the listing reports a missing folder."""

    @in_batches
    def rows(self, found: ListingCounts, listing: Listing) -> Iterator[Row]:
        """Rows of `schema.LISTING`, as from `list_images`.

        Raises:
            InputError: the folder is empty, cannot be listed, or its splits are ambiguous.
        """
        layout = found.layout = listing.layout(self._root, self._look)
        for folders, item, is_result in self._walk():
            names = _texts(folders)
            if item.is_link:
                found.skip_link("/".join([*names, to_text(item.name)]))
                continue
            skipped = RESULTS if is_result else _skipped(names, item, layout, all_files=listing.all_files)
            if skipped is not None:
                found.skipped[skipped] += 1
                continue
            row = self._row(folders, item, layout)
            found.add_image(row[1], "/".join(names))
            yield row

    def names(self) -> Iterator[bytes]:
        """The names of all files."""
        walk = self._walk()
        return (item.name for folders, item, is_result in walk if not (is_result or tools_folder(_texts(folders))))

    def deletable(self) -> NoReturn:
        raise ConfigError(
            f"mission9 does not delete images at {self._root}: delete them there, and erase without --source"
        )

    def file(self, path: str) -> None:  # noqa: ARG002
        return None

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The whole content of a file.

        Raises:
            ImageError: it cannot be read.
        """
        place = f"{self._top.rstrip('/')}/{from_text(path).decode(errors='surrogateescape')}"
        try:
            return _retry(lambda: self._content(place, max_bytes))
        except (ImageError, SetupError):
            raise
        except FileNotFoundError as error:
            raise ImageError("vanished", "the file does not exist (any more)") from error
        except PermissionError as error:
            raise ImageError("permission_denied", "no permission to read the file") from error
        except Exception as error:  # each store raises errors of its own
            raise ImageError("unreadable", _words(error)) from error

    def _content(self, place: str, max_bytes: int) -> bytes:
        with self._connections.one() as fs:
            return _content(fs, place, max_bytes)

    def _connected(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise SetupError(
                f"fsspec, which reads {self._root}, is not installed: pip install 'mission9[fsspec]'"
            ) from error
        try:
            # The cached listing of a million files must not stay in memory.
            fs, top = _retry(
                lambda: url_to_fs(self._root, use_listings_cache=False, skip_instance_cache=True), also=(ImportError,)
            )
        except (ImportError, ValueError) as error:
            raise SetupError(
                f"Python cannot reach {self._root} ({_words(error)}): install the missing package, or mount the "
                "store and pass the folder"
            ) from error
        except Exception as error:  # each store raises errors of its own
            if "libhdfs" in str(error):
                raise SetupError(f"{self._root} {_NO_HADOOP}") from error
            raise InputError(f"{self._root} cannot be reached: {_words(error)}; check the URL") from error
        return fs, str(top)

    def _walk(self) -> Iterator[tuple[list[bytes], _Item, bool]]:
        """Every file with the names of its folders, sorted by the paths' bytes, and True for a file of a result."""
        levels = [_Level(self._items(self._top))]
        folders: list[bytes] = []
        while levels:
            for item in levels[-1].items:
                if item.name.endswith(b"/"):
                    levels.append(_Level(self._items(item.place), is_result=levels[-1].is_result))
                    folders.append(item.name[:-1])
                    break
                yield folders, item, levels[-1].is_result
            else:
                levels.pop()
                folders = folders[: len(levels) - 1]

    def _look(self, above: Sequence[str]) -> tuple[list[str], bool]:
        """The folders below others, as a `Look` function."""
        place = "/".join([self._top.rstrip("/"), *above]) if above else self._top
        items = self._items(place)
        folders = [to_text(item.name[:-1]) for item in items if item.name.endswith(b"/")]
        return folders, any(has_image_name(item.name) for item in items)

    def _items(self, place: str) -> list[_Item]:
        try:
            listed = _retry(lambda: self._listed(place))
        except FileNotFoundError as error:
            raise InputError(f"there is no folder {self._root}: pass the folder of your images with --input") from error
        except Exception as error:  # each store raises errors of its own
            raise InputError(f"{self._root} cannot be listed ({_words(error)}): fix the store or the URL") from error
        progress()
        # Stores without folders may hold a placeholder object with a folder's name.
        return sorted(_item(info) for info in listed if info["name"].strip("/") != place.strip("/"))

    def _listed(self, place: str) -> list[dict[str, Any]]:
        with self._connections.one() as fs:
            return list(fs.ls(place, detail=True))

    def _row(self, folders: list[bytes], item: _Item, layout: Layout) -> Row:
        top = to_text(self._root.rstrip("/").rpartition("/")[2].encode())
        path, names = to_text(b"/".join([*folders, item.name])), _texts(folders)
        return path, layout.split_of(names), layout.label_of(names, top), item.size, item.modified


class _Level:
    """A folder on the way down: its remaining items, and True if it belongs to a result."""

    def __init__(self, items: list[_Item], *, is_result: bool = False) -> None:
        self.items = iter(items)
        self.is_result = is_result or any(item.name == f"{STATE}/".encode() for item in items)


def _texts(names: Sequence[bytes]) -> list[str]:
    return [to_text(name) for name in names]


def _skipped(folders: Sequence[str], item: _Item, layout: Layout, *, all_files: bool) -> str | None:
    """The category under which a file is skipped; None if it is listed."""
    if all_files:
        return None
    return tools_folder(folders) or skipped_as(item.name, next_to_splits=layout.is_next_to_splits(folders))


def _item(info: dict[str, Any]) -> _Item:
    name = info["name"].rstrip("/").rpartition("/")[2].encode(errors="surrogateescape")
    kind = info.get("type")
    slash = b"/" if kind == "directory" else b""
    is_link = kind not in ("directory", "file") or bool(info.get("islink"))
    return _Item(name + slash, info["name"], int(info.get("size") or 0), _modified(info), is_link)


def _modified(info: dict[str, Any]) -> int:
    """The modification time in nanoseconds since 1970; 0 if unknown, when only the size shows a change."""
    found = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(found, str):
        text = found.partition(".")[0] if found.replace(".", "").isdigit() else found
        try:
            found = datetime.strptime(text, "%Y%m%d%H%M%S") if text.isdigit() else datetime.fromisoformat(text)
        except ValueError:
            return 0
    if isinstance(found, datetime):
        aware = found if found.tzinfo else found.replace(tzinfo=UTC)
        return listed_time(int(aware.timestamp()) * _SECOND + aware.microsecond * 1000)
    if not isinstance(found, int | float) or not math.isfinite(found):
        return 0
    return listed_time(int(found * _SECOND))


def _content(fs: Any, place: str, max_bytes: int) -> bytes:
    whole = _in_one_request(fs, place, min(_PIECE, max_bytes + 1))
    if whole is not None:
        return whole
    with fs.open(place, "rb") as file:
        size = getattr(file, "size", None)
        if isinstance(size, int) and size > max_bytes:
            raise ImageError("too_many_bytes", f"{size} bytes exceed the limit of {max_bytes}")
        pieces, length = [], 0
        while length <= max_bytes and (piece := file.read(min(_PIECE, max_bytes + 1 - length))):
            pieces.append(piece)
            length += len(piece)
            progress()
    if length > max_bytes:
        raise ImageError("too_many_bytes", f"the file exceeds the limit of {max_bytes} bytes")
    if isinstance(size, int) and length != size:
        raise OSError(f"the file was truncated after {length} of {size} bytes")
    return b"".join(pieces)


def _in_one_request(fs: Any, place: str, length: int) -> bytes | None:
    """Read a file shorter than `length`; None if one request is not enough to read it, or to learn the error."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if not protocols & _BY_RANGE:
        return None
    try:
        head: bytes = fs.cat_file(place, start=0, end=length)
    except ANSWERS:
        raise
    except Exception:  # each store raises errors of its own; an empty file, for one, has no first byte
        return None
    return head if 0 < len(head) < length else None


def _retry(work: Callable[[], Got], also: tuple[type[Exception], ...] = ()) -> Got:
    """Call `work`, retrying errors that may be transient."""
    final: tuple[type[Exception], ...] = (*ANSWERS, *also, InputError, SetupError, ValueError)
    pauses = [_PAUSE * 2**attempt for attempt in range(_TRIES - 1)]
    return retry(work, lambda error: not isinstance(error, final), pauses)


def _words(error: Exception) -> str:
    return shown((str(error) or type(error).__name__).partition("\n")[0])[:300]

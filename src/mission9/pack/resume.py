"""Find the work of earlier calls, even killed ones, on a pack: the manifest, the plan, and its finished parts."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from mission9.errors import InputError
from mission9.output.tables import read_table
from mission9.pack.errors import Damaged, damage_found
from mission9.pack.plan_pack import DoneParts, PackPlan, plan_pack
from mission9.sources.pack.layout import DONE, IMAGES, MANIFEST, MAX_MANIFEST_BYTES, PLAN_FILE, Manifest
from mission9.storage.file_store import FileStore

logger = logging.getLogger(__name__)


def find_manifest(store: FileStore) -> Manifest | None:
    """The current manifest; None if it is missing or damaged, when everything is packed again."""
    content = store.read(MANIFEST, MAX_MANIFEST_BYTES)
    try:
        return Manifest.of(content, str(store)) if content is not None else None
    except InputError as error:
        logger.warning("%s", error)
        return None


def plan_rest(store: FileStore, folder: Path, *, overwrite: bool) -> PackPlan:
    """Plan the work for the listing in a folder; the plan is saved, so that the next call can resume a killed one."""
    earlier = None if overwrite else _fetched(store, PLAN_FILE, folder / "earlier.parquet")
    done = _done(store, folder) if earlier is not None else DoneParts()
    listing = folder / "listing.parquet"
    try:
        with damage_found(PLAN_FILE):
            plan = plan_pack(listing, earlier, folder, done)
    except Damaged as damage:
        logger.warning("%s: %s, and everything is packed again", store, damage)
        plan = plan_pack(listing, None, folder, DoneParts())
    with store.writing(PLAN_FILE) as file:
        shutil.copyfile(plan.images, file)
    return plan


def _done(store: FileStore, folder: Path) -> DoneParts:
    """The finished work, from the index rows of the parts and from the stored files."""
    manifest = find_manifest(store)
    shown = manifest.parts if manifest is not None else {}
    lengths = {name.removesuffix(".parquet"): length for name, length in store.sizes(IMAGES).items()}
    noted = {name.removesuffix(".parquet") for name in store.sizes(DONE)}
    parts = {key for key in noted if key in lengths and shown.get(key, lengths[key]) == lengths[key]}
    unread = _unread(store, manifest.rejects, folder) if manifest is not None else set()
    return DoneParts(parts=parts, shown=shown.keys(), unread=unread)


def _unread(store: FileStore, rejects: str, folder: Path) -> set[str]:
    """The unreadable images; empty if their table is damaged, since it is rewritten in any case."""
    file = _fetched(store, rejects, folder / "rejects.parquet")
    try:
        with damage_found(rejects):
            return set(read_table(file, ["path"])["path"].to_pylist()) if file is not None else set()
    except Damaged as damage:
        logger.warning("%s: %s; the next call retries the unreadable images", store, damage)
        return set()


def _fetched(store: FileStore, name: str, file: Path) -> Path | None:
    """A local copy of a file of the pack; None if it does not exist."""
    folder, _, last = name.rpartition("/")
    if last not in store.sizes(folder):
        return None
    with store.open(name) as source, file.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 24)
    return file

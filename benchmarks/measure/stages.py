"""The stage of a run, told from outside by the contents of its output folder."""

from __future__ import annotations

from pathlib import Path

STAGES = ("start", "list", "wait", "extract", "compact", "fit", "project", "save", "publish", "end")


class Stages:
    """The stages of one run; what an earlier one left in the folder is not taken for this one's.

    The end of the extraction is not told from what follows without the number of its `shards`, and its beginning not
    from the wait for a runner.
    """

    def __init__(self, output: Path, fingerprint: str = "*", shards: int | None = None) -> None:
        self._output = output
        self._state = output / "_state"
        self._fingerprint = fingerprint
        self._count = shards
        self._earlier = self._published()

    def now(self) -> str:
        """The stage that the run is in; it takes far less than a millisecond to tell."""
        if (self._state / "ready").exists():
            return "publish"
        if self._published() not in (None, self._earlier):
            return "end"
        work = self._state / "work"
        if not work.exists():
            return "start"
        if (work / "pca_model").exists():
            return "save"
        if (self._state / "chunks").exists():
            return "project"
        if (work / "rejects").exists():
            return "fit"
        if not any(self._state.glob(f"shards/{self._fingerprint}/images.parquet")):
            return "list"
        return "extract" if self._count is None or len(self.markers()) < self._count else "compact"

    def markers(self) -> list[Path]:
        """The markers of what is committed: shards, and once these are gathered, parts."""
        return list(self._state.glob(f"shards/{self._fingerprint}/[0-9a-f]*.json"))

    def _published(self) -> int | None:
        try:
            return (self._output / "run.json").stat().st_ino
        except FileNotFoundError:
            return None

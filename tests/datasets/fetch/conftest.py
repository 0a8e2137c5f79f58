"""Archives, honest and hostile, made by the libraries that others make them with."""

from __future__ import annotations

import importlib.util
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.forks import Forks

Files = dict[str, bytes]

# Where editions of Fruits-360 have had their images, with what else lies in their archives.
LAYOUTS = {
    "A": {"100x100": "fruits-360_dataset/fruits-360"},
    "B": {
        "100x100": "fruits-360_dataset_100x100/fruits-360",
        "original": "fruits-360_dataset_original-size/fruits-360-original-size",
    },
    "C": {
        "100x100": "fruits-360_100x100/fruits-360",
        "original": "fruits-360_original-size/fruits-360-original-size",
        "other": "fruits-360_3-body-problem/fruits-360-3-body-problem",
    },
    "top": {"100x100": ""},
}


# What asks Kaggle, where it is installed.
CLIENT = ("kagglehub.clients", "kagglesdk.datasets.types.dataset_api_service")


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    client = CLIENT if importlib.util.find_spec("kagglehub") else ()
    with Forks(
        modules=("mission9.cli.entry", "mission9.datasets.fetch.fetch_dataset", *client), engine=False
    ) as started:
        yield started


def dataset(layout: str, pictures: list[bytes]) -> Files:
    """Three images of Training and one of Test in each variant, each variant's their own."""
    files: Files = {"README.md": b"who made it"}
    for number, place in enumerate(LAYOUTS[layout].values()):
        top = f"{place}/" if place else ""
        names = ["Training/Apple Braeburn 1/r2_1_100.jpg", "Training/Apple Braeburn 1/2_100.jpg"]
        names += ["Training/Pomme d'été/1_100.jpg", "Test/Apple Braeburn 1/1_100.jpg", "LICENSE"]
        files |= {f"{top}{name}": pictures[number + at] for at, name in enumerate(names)}
    return files


def make_zip(file: Path, files: Files, **attributes: Any) -> Path:
    """A zip file; `attributes` are set on every entry."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x", (2024, 8, 4, 12, 0, 0))
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.writestr(info, content)
    return file


def make_tar(file: Path, files: Files, mode: str = "w:gz", **attributes: Any) -> Path:
    """A tar file, packed by gzip; `attributes` are set on every entry."""
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1722772800
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(content))
    return file

"""Tests of what not every environment has."""

from __future__ import annotations

import importlib.util

import pytest


def skip_without(package: str, remedy: str) -> None:
    """Skip a file of tests where a package is not installed, without importing it: some take seconds."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: {remedy}", allow_module_level=True)

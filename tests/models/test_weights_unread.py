"""Weights whose shapes are not MobileNetV2's: told by their shapes, before anything is made of what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mission9.errors import WeightsError
from mission9.models.weights import Tensors, load_weights


def test_shapes_are_looked_at_before_tensors_are_converted(tmp_path: Path, demo_tensors: Tensors) -> None:
    """The tensor is nowhere, so that whoever tries to convert it tells of damage, and not of its shape."""
    state = {name: torch.from_numpy(array.copy()) for name, array in demo_tensors.items()}
    state["features.18.0.weight"] = torch.empty(30_000, 30_000, device="meta")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"not MobileNetV2's: features.18.0.weight has shape \(30000, 30000\)"):
        load_weights(str(tmp_path / "w.pth"))

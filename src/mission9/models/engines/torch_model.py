"""MobileNetV2's features as a torch module: for the torch engine and for training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mission9.models.mobilenet_v2 import BLOCKS, NORM_EPSILON, Conv

_COUNTER = "num_batches_tracked"  # counts training steps; no part of the function


class MobileNetV2Features(nn.Module):
    """The network from (N, 3, H, W) normalised RGB to (N, 1280), including global average pooling.

    Parameters have torchvision's names with "/" for ".", which torch does not allow in a module's name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for conv in _convs():
            self.layers[_key(conv.name)] = nn.Conv2d(
                conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.padding, groups=conv.groups, bias=False
            )
            self.layers[_key(conv.norm)] = nn.BatchNorm2d(conv.outputs, eps=NORM_EPSILON)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images
        for block in BLOCKS:
            y = x
            for conv in block.convs:
                y = self.layers[_key(conv.norm)](self.layers[_key(conv.name)](y))
                y = y if conv.linear else nn.functional.relu6(y)
            x = x + y if block.residual else y
        # Half precision suffices for the layers, but would round the averages of their results once more.
        return x.mean((2, 3), dtype=torch.promote_types(x.dtype, torch.float32))

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load the weights from tensors under torchvision's names; all are required."""
        counters = {key: value for key, value in self.state_dict().items() if key.endswith(_COUNTER)}
        weights = {key: tensors[_name(key)] for key in self.state_dict() if not key.endswith(_COUNTER)}
        self.load_state_dict(counters | weights)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights under torchvision's names."""
        return {_name(key): value for key, value in self.state_dict().items() if not key.endswith(_COUNTER)}

    def fuse(self) -> None:
        """Fold every batch norm into its convolution, for inference only: the same function, half the passes."""
        self.eval()
        for conv in _convs():
            convolution, norm = self.layers[_key(conv.name)], self.layers[_key(conv.norm)]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                self.layers[_key(conv.name)] = fuse_conv_bn_eval(convolution, norm)
                self.layers[_key(conv.norm)] = nn.Identity()


def _convs() -> list[Conv]:
    return [conv for block in BLOCKS for conv in block.convs]


def _key(name: str) -> str:
    return name.replace(".", "/")


def _name(state_key: str) -> str:
    return state_key.removeprefix("layers.").replace("/", ".")

"""MobileNetV2 as a table of convolutions, their names and connections; readable without a framework.

Layout and tensor names are those of torchvision's `mobilenet_v2` (Sandler et al. 2018,
https://arxiv.org/abs/1801.04381, table 2). The table omits the classifier, since the features are
its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mission9.schema import FEATURES

INPUT_SIZE = 224  # pixels per side
NORM_EPSILON = 1e-5  # torch.nn.BatchNorm2d's default, which torchvision keeps

# Rows of (expansion, output channels, repeats, stride of the first): table 2 of the paper.
_INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, then a batch norm, then ReLU6 unless `linear`."""

    name: str
    norm: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    linear: bool = False

    @property
    def padding(self) -> int:
        return (self.kernel - 1) // 2


@dataclass(frozen=True)
class Block:
    """Convolutions in sequence; with `residual`, the block adds its input to its output."""

    convs: tuple[Conv, ...]
    residual: bool = False


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor that the features need, in torchvision's state-dict layout."""
    shapes: dict[str, tuple[int, ...]] = {}
    for conv in (conv for block in BLOCKS for conv in block.convs):
        shapes[f"{conv.name}.weight"] = (conv.outputs, conv.inputs // conv.groups, conv.kernel, conv.kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{conv.norm}.{part}"] = (conv.outputs,)
    return shapes


def _blocks() -> Iterator[Block]:
    yield Block((Conv("features.0.0", "features.0.1", 3, 32, kernel=3, stride=2),))
    inputs, index = 32, 1
    for expansion, outputs, repeats, first_stride in _INVERTED_RESIDUALS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            yield _inverted_residual(f"features.{index}.conv", inputs, outputs, stride, expansion)
            inputs, index = outputs, index + 1
    yield Block((Conv(f"features.{index}.0", f"features.{index}.1", inputs, FEATURES),))


def _inverted_residual(name: str, inputs: int, outputs: int, stride: int, expansion: int) -> Block:
    hidden = inputs * expansion
    convs = [Conv(f"{name}.0.0", f"{name}.0.1", inputs, hidden)] if expansion != 1 else []
    at = len(convs)
    convs.append(Conv(f"{name}.{at}.0", f"{name}.{at}.1", hidden, hidden, kernel=3, stride=stride, groups=hidden))
    convs.append(Conv(f"{name}.{at + 1}", f"{name}.{at + 2}", hidden, outputs, linear=True))
    return Block(tuple(convs), residual=stride == 1 and inputs == outputs)


BLOCKS: tuple[Block, ...] = tuple(_blocks())

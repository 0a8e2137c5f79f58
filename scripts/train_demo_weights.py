"""Train the bundled `demo` weights on generated pictures of fruit and write them as float16 safetensors.

    python scripts/train_demo_weights.py --output src/mission9/data/mobilenet_v2-demo.safetensors

The pictures come from streams of random numbers that the sample's Training and Test do not use. About
20 minutes on two cores. The network is MobileNetV2 in full; the weights know generated fruit and little else.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from mission9.datasets.demo import VARIETIES, draw
from mission9.models.engines.torch_model import MobileNetV2Features
from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.models.preprocess import MEAN, STD
from mission9.schema import FEATURES

TRAIN_STREAM, VALIDATION_STREAM = 1000, 1001
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--per-variety", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    images, labels = pictures(TRAIN_STREAM, arguments.per_variety)
    held_out = pictures(VALIDATION_STREAM, 20)
    features, head = MobileNetV2Features(), nn.Linear(FEATURES, len(VARIETIES))
    # Small pictures first, since they train fast; then at the size that the engines use.
    train(features, head, images, labels, size=112, epochs=arguments.epochs, rate=3e-3)
    train(features, head, images, labels, size=INPUT_SIZE, epochs=arguments.epochs // 2, rate=1e-3)
    print(f"accuracy on {len(held_out[1])} pictures never seen: {accuracy(features, head, *held_out):.3f}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in features.tensors().items()}
    save_file(tensors, arguments.output, metadata={"trained_on": "mission9 generated fruit", "format": "pt"})
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.2f} MB")


def pictures(stream: int, per_variety: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, 100, 100) uint8 and (N,) class numbers, varieties in turn."""
    drawn = [draw(variety, stream=stream, number=n) for n in range(per_variety) for variety in VARIETIES]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2), torch.arange(len(VARIETIES)).repeat(per_variety)


def train(
    features: nn.Module,
    head: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    size: int,
    epochs: int,
    rate: float,
) -> None:
    parameters = [*features.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps)
    features.train()
    for epoch in range(epochs):
        losses = []
        for chosen in shuffled_batches(len(images)):
            x = prepare(images[chosen], size)
            x = x.flip(3) if torch.rand(()) < 0.5 else x
            loss = cross_entropy(head(features(x)), labels[chosen], label_smoothing=0.1)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"size {size}, epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.3f}", flush=True)


def shuffled_batches(count: int) -> Iterator[torch.Tensor]:
    yield from torch.split(torch.randperm(count), BATCH)


def prepare(images: torch.Tensor, size: int) -> torch.Tensor:
    x = interpolate(images.float() / 255, size=(size, size), mode="bilinear")
    x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def accuracy(features: nn.Module, head: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    features.eval()
    guesses = [head(features(prepare(batch, INPUT_SIZE))).argmax(1) for batch in torch.split(images, BATCH)]
    return float((torch.cat(guesses) == labels).float().mean())


if __name__ == "__main__":
    main()

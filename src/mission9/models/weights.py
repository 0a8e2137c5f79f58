"""Load and check weights, by name or from a file, without executing the file's contents."""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import os
import pickle  # only for the name of its error
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from mission9.errors import SetupError, WeightsError
from mission9.models.mobilenet_v2 import tensor_shapes
from mission9.storage.file_store import is_file, read_place
from mission9.storage.local.untrusted import MAX_WEIGHTS_BYTES, check_archive, read_tensors

# Trained networks have far smaller values. A flipped bit of an exponent exceeds this, often without an overflow.
LARGEST_VALUE = 1e8

Tensors = Mapping[str, NDArray[np.float32]]

_DEMO, _IMAGENET = "demo", "imagenet"

DEMO_FILE = "mobilenet_v2-demo.safetensors"
SAVED_FILE = "weights.safetensors"  # next to a PCA model, so that new images can be projected anywhere

# torchvision's MobileNet_V2_Weights.IMAGENET1K_V2; the file's name contains the first 8 digits of its SHA-256.
IMAGENET_URL = "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"
IMAGENET_SHA256 = "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f"


@dataclass(frozen=True)
class Weights:
    """MobileNetV2's feature weights under torchvision's names, as safetensors bytes of float32.

    Bytes can travel to the workers and be saved next to a PCA model. `sha256` is computed from them, and therefore
    identifies the weights themselves, whatever the kind of their file.
    """

    name: str
    data: bytes
    sha256: str = field(init=False)  # computed early: on first access, a thread may be sending this to the workers

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.data).hexdigest())

    def tensors(self) -> Tensors:
        return safetensors.numpy.load(self.data)


def check_weights(which: str) -> None:
    """Refuse an unknown name or file, without reading weights.

    Raises:
        WeightsError: `which` is neither a known name nor a file of a supported kind.
    """
    if which in (_DEMO, _IMAGENET):
        return
    if not is_file(which, WeightsError):
        raise WeightsError(f"there is no weights file {which}; give imagenet, demo, or a .pth or .safetensors file")
    if Path(which).suffix not in (".pth", ".pt", ".safetensors"):
        raise WeightsError(f"weights file {which}: its name must end in .pth, .pt or .safetensors")


def load_weights(which: str | Path) -> Weights:
    """Load the weights named `imagenet` (downloaded once) or `demo` (bundled), or a .pth or .safetensors file.

    Raises:
        WeightsError: the file is missing, unreadable, not MobileNetV2's features, or holds more than tensors.
        SetupError: `imagenet` cannot be downloaded, or torch is needed and not installed.
    """
    which = str(which)
    check_weights(which)
    if which == _DEMO:
        bundled = importlib.resources.files("mission9") / "data" / DEMO_FILE
        with importlib.resources.as_file(bundled) as path:
            return _checked(which, _read_safetensors(str(path)))
    if which == _IMAGENET:
        return _checked(which, _read_pth(str(_download_imagenet())))
    return _checked(which, _read_safetensors(which) if which.endswith(".safetensors") else _read_pth(which))


def read_saved_weights(folder: Path, *, name: str, sha256: str) -> Weights:
    """Read the weights next to a PCA model.

    Raises:
        WeightsError: they are damaged, or not those of the model.
    """
    weights = _checked(name, _read_safetensors(str(folder / SAVED_FILE)))
    if weights.sha256 != sha256:
        raise WeightsError(f"{folder / SAVED_FILE} does not hold the weights of the model: copy both again")
    return weights


def _checked(name: str, tensors: Mapping[str, NDArray[np.floating]]) -> Weights:
    _check_shapes(name, {tensor: array.shape for tensor, array in tensors.items()})
    kept = {}
    for tensor in tensor_shapes():
        array = np.ascontiguousarray(tensors[tensor], np.float32)
        if not (np.abs(array) < LARGEST_VALUE).all():  # NaN is not less than any number
            raise WeightsError(f"weights {name} are damaged: {tensor} holds NaN, or values beyond {LARGEST_VALUE:g}")
        kept[tensor] = array
    return Weights(name, safetensors.numpy.save(kept))


def _check_shapes(name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for tensor, shape in tensor_shapes().items():
        if tensor not in shapes:
            raise WeightsError(f"weights {name} are not MobileNetV2's: there is no tensor {tensor}")
        if shapes[tensor] != shape:
            raise WeightsError(
                f"weights {name} are not MobileNetV2's: {tensor} has shape {shapes[tensor]}, not {shape}"
            )


def _read_safetensors(path: str) -> Mapping[str, NDArray[np.floating]]:
    data = read_place(path, MAX_WEIGHTS_BYTES, WeightsError)
    try:
        return read_tensors(data)
    except ValueError as error:
        raise WeightsError(f"weights file {path} is not a whole safetensors file ({error}): get it again") from error


def _read_pth(path: str) -> Mapping[str, NDArray[np.floating]]:
    try:
        import torch
    except ImportError as error:
        raise SetupError(
            f"reading {os.path.basename(path)} needs torch (pip install 'mission9[torch]'): install it, or give a "
            ".safetensors file"
        ) from error
    data = read_place(path, MAX_WEIGHTS_BYTES, WeightsError)
    try:
        check_archive(data)
        # weights_only refuses everything but tensors and plain containers, without executing it.
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own message advises to load the file unsafely
        raise WeightsError(
            f"weights file {path} is damaged, or holds Python objects, which were not run: get it from a source "
            "you trust, best as .safetensors"
        ) from error
    except Exception as error:  # on damaged files, the parser raises exceptions of any type
        raise WeightsError(f"weights file {path} is damaged ({_first_sentence(error)}): get it again") from error
    return _arrays(path, state)


def _arrays(path: str, state: object) -> Mapping[str, NDArray[np.floating]]:
    import torch

    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"weights file {path} does not hold a state dict (names and tensors)")
    tensors = {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    # Before the conversion, which would allocate the full size of a tensor that repeats one number a billion times.
    _check_shapes(str(path), {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    try:
        return {name: tensors[name].float().numpy() for name in tensor_shapes()}
    except Exception as error:  # tensors without data, or sparse ones
        raise WeightsError(f"weights file {path} is damaged ({_first_sentence(error)}): get it again") from error


def _download_imagenet() -> Path:
    import pooch
    import requests

    try:
        return Path(
            pooch.retrieve(
                IMAGENET_URL,
                known_hash=f"sha256:{IMAGENET_SHA256}",
                fname=os.path.basename(IMAGENET_URL),
                path=pooch.os_cache("mission9"),
            )
        )
    except (requests.RequestException, OSError) as error:
        offline = isinstance(error, requests.ConnectionError)
        why = "there is no connection to its server" if offline else _first_sentence(error)
        raise SetupError(
            f"the imagenet weights cannot be downloaded: {why}. Fetch {IMAGENET_URL} elsewhere and give the file with "
            "--weights mobilenet_v2-7ebf99e0.pth, or use --weights demo"
        ) from error
    except ValueError as error:  # pooch's error for a wrong hash
        raise WeightsError(f"what {IMAGENET_URL} gave is not the file it should be: {error}") from error


def _first_sentence(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition(". ")[0][:200]

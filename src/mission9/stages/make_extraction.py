"""Settings -> the engine and the weights of the workers."""

from __future__ import annotations

from mission9.config import RunConfig
from mission9.decoding.pixels import pixels_digest
from mission9.models.engines import check_cpu, choose_engine
from mission9.models.engines.base import EngineSpec
from mission9.models.extraction import Extraction
from mission9.models.weights import load_weights
from mission9.runners.factory import works_elsewhere


def make_extraction(config: RunConfig) -> Extraction:
    """Determine engine and weights on the driver, so that workers neither choose nor download.

    Raises:
        UsageError: a setting is not possible, or the weights cannot be used.
        SetupError: this machine lacks a device or a package.
    """
    return _with_weights(config, resolve_engine(config))


def resolve_engine(config: RunConfig) -> EngineSpec:
    """The engine of a run, from the settings and this machine alone: no weights are read, and no process starts.

    Raises:
        ConfigError: the settings contradict each other.
        SetupError: this machine lacks a device or a package.
    """
    elsewhere = works_elsewhere(config)
    engine = choose_engine(
        engine=config.engine,
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
        elsewhere=elsewhere,
    )
    if not elsewhere:
        check_cpu(engine)
    return engine


def _with_weights(config: RunConfig, engine: EngineSpec) -> Extraction:
    return Extraction(
        engine=engine,
        weights=load_weights(config.weights),
        preprocess=config.preprocess,
        decode=config.decode,
        max_pixels=config.max_pixels,
        max_bytes=config.max_bytes,
        pixels=pixels_digest(config.decode),
    )

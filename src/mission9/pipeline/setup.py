"""Determine the engine, the weights, the given model and the int8 network of a run before it computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mission9.config import RunConfig
from mission9.crypto.parquet import check_encryption
from mission9.errors import ConfigError
from mission9.model_facts import ModelFacts
from mission9.models.engines.int8 import Int8Network
from mission9.models.extraction import Extraction
from mission9.models.weights import check_weights
from mission9.output.local import Output
from mission9.output.tombstones import Tombstones
from mission9.pca import PCAModel
from mission9.pipeline.plan import FEW_IMAGES, images_of
from mission9.pipeline.preflight import RunRequest
from mission9.results.reader import of_one_model
from mission9.runners.background import Runners
from mission9.schema import FEATURES
from mission9.sources.list_images import has_more_images
from mission9.sources.listing import ListingCounts
from mission9.stages.calibrate_int8 import calibrate_int8
from mission9.stages.extract_shard import GetReady, wake
from mission9.stages.make_extraction import _with_weights, resolve_engine


def set_up(request: RunRequest, output: Output, runners: Runners) -> tuple[Extraction, PCAModel | None]:
    """The extraction of a run, and its given model, if any.

    For a first run of many images, the runners start in the background.

    Raises:
        UsageError: a setting is not possible, or the weights or the model cannot be used.
        SetupError: this machine lacks a device or a package.
    """
    config = request.config
    check_encryption(output.state, config.encrypt_key, config.output)
    engine = resolve_engine(config)
    check_weights(config.weights)
    if output.is_empty and has_more_images(request.root, FEW_IMAGES):
        runners.begin()  # a start takes seconds; this process prepares the rest at the same time
        runners.warm_up(wake)
    extraction = _with_weights(config, engine)
    model, network = _given_model(config, extraction, output)
    extraction = _calibrated(request, extraction, output, network)
    runners.warm_up(GetReady(extraction))
    return extraction, model


def _given_model(
    config: RunConfig, extraction: Extraction, output: Output
) -> tuple[PCAModel | None, Int8Network | None]:
    """The model named by `--pca-model`, without moments, and the int8 network of its features, if any.

    Raises:
        ConfigError: the model was made of other features, or may have been fitted on an image erased from `output`.
    """
    if config.pca_model is None:
        return None, None
    model, facts, network = of_one_model(config.pca_model, _read_model)
    if model.sha256 in Tombstones.of(output.state_files).retired:
        raise ConfigError(
            f"the PCA model in {config.pca_model} may have seen images erased from {config.output}: erase them from "
            "its output too, or drop --pca-model"
        )
    theirs = (facts.weights_sha256, facts.preprocess, facts.precision, facts.decode)
    ours = (extraction.weights.sha256, extraction.preprocess, extraction.engine.precision, extraction.decode)
    if theirs != ours:
        options = f"--weights {facts.weights} --preprocess {facts.preprocess} --precision {facts.precision}"
        options += f" --decode {facts.decode}"
        raise ConfigError(
            f"the PCA model in {config.pca_model} was fitted on different features: give {options}, or drop --pca-model"
        )
    return model, network


def _read_model(folder: Path) -> tuple[PCAModel, ModelFacts, Int8Network | None]:
    model = PCAModel.load(folder, features=FEATURES)
    facts = ModelFacts.of(model, folder)
    return model.without_moments(), facts, Int8Network.load(folder) if facts.precision == "int8" else None


def _calibrated(request: RunRequest, extraction: Extraction, output: Output, network: Int8Network | None) -> Extraction:
    """The extraction with an int8 network, if its precision is int8: the given one, an earlier run's, or a new one."""
    if extraction.engine.precision != "int8":
        return extraction
    folder = output.calibration(extraction.fingerprint)
    network = network or Int8Network.load(folder)
    if network is None:
        listing = images_of(request, output, ListingCounts())
        network = calibrate_int8(request.root, listing, extraction, scratch=output.work)
        network.save(folder)
    return replace(extraction, int8=network)

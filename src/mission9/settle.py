"""What a run settles before its work begins: engine, weights, a model that is given, the int8 network."""

from __future__ import annotations

from dataclasses import replace

from mission9.config import RunConfig
from mission9.engines import EngineSpec, check_cpu, choose_engine
from mission9.engines.int8 import Int8Network
from mission9.errors import ConfigError, ModelError
from mission9.extraction import Extraction
from mission9.network.mobilenet_v2 import FEATURES
from mission9.network.weights import check_weights, load_weights
from mission9.output.folder import Output
from mission9.pca import PCAModel
from mission9.places import model_here
from mission9.planning import FEW_IMAGES, images_of
from mission9.privacy.encryption import check_encryption
from mission9.runners import works_elsewhere
from mission9.runners.background import Runners
from mission9.sources import settled
from mission9.stages.calibrate_int8 import calibrate_int8
from mission9.stages.extract_shard import GetReady
from mission9.stages.list_images import Found, has_more_images


def settle(config: RunConfig, output: Output, runners: Runners) -> tuple[Extraction, PCAModel | None]:
    """The extraction of a run, and the model that it is given, if any; runners begin to start meanwhile.

    Raises:
        UsageError: a setting is not possible, or the weights or the model cannot be used.
        SetupError: this machine lacks a device or a package.
    """
    check_encryption(output.state, config.encrypt_key, config.output)
    engine = settle_engine(config)
    check_weights(config.weights)
    if output.is_empty and has_more_images(config.input, FEW_IMAGES):
        runners.begin()  # it takes seconds, in which the rest gets ready
    extraction = _with_weights(config, engine)
    model = _given_model(config, extraction)
    extraction = _calibrated(config, extraction, output)
    runners.warm_up(GetReady(extraction))
    return extraction, model


def make_extraction(config: RunConfig) -> Extraction:
    """Settle engine and weights on this side, so that workers neither choose nor download.

    Raises:
        UsageError: a setting is not possible, or the weights cannot be used.
        SetupError: this machine lacks a device or a package.
    """
    return _with_weights(config, settle_engine(config))


def settle_engine(config: RunConfig) -> EngineSpec:
    """The engine of a run, settled by looking at this machine alone: before weights are read, or anything starts.

    Raises:
        ConfigError: the settings do not go together.
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
        max_pixels=config.max_pixels,
        max_bytes=config.max_bytes,
    )


def _given_model(config: RunConfig, extraction: Extraction) -> PCAModel | None:
    """The model that `--pca-model` names, if it was made of such features."""
    if config.pca_model is None:
        return None
    model = PCAModel.load(model_here(config.pca_model), features=FEATURES)
    try:
        weights, preprocess = model.facts["weights"], model.facts["preprocess"]
        theirs = (weights["sha256"], preprocess, model.facts["engine"]["precision"])
        options = f"--weights {weights['name']} --preprocess {preprocess} --precision {theirs[-1]}"
    except (KeyError, TypeError) as error:
        raise ModelError(f"the PCA model in {config.pca_model} does not say what features it was made of") from error
    if theirs != (extraction.weights.sha256, extraction.preprocess, extraction.engine.precision):
        raise ConfigError(
            f"the PCA model in {config.pca_model} means nothing to other features than it was made of: give {options}, "
            "or fit anew without --pca-model"
        )
    return model


def _calibrated(config: RunConfig, extraction: Extraction, output: Output) -> Extraction:
    """The extraction with its int8 network, if it is to have one: the one of an earlier run, or a new one."""
    if extraction.engine.precision != "int8":
        return extraction
    folder = output.calibration(extraction.fingerprint)
    network = Int8Network.load(model_here(config.pca_model) if config.pca_model else folder)
    if network is None:
        root = settled(config.input)
        listing = images_of(root, config, output, Found())
        network = calibrate_int8(root, listing, extraction, scratch=output.work)
        network.save(folder)
    return replace(extraction, int8=network)

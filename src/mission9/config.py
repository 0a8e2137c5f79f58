"""The settings of a run, in order of precedence: command line, environment, file, default."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from cyclopts import Group, Parameter
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from mission9.errors import ConfigError
from mission9.options import (
    MAX_BYTES,
    MAX_PIXELS,
    Decode,
    Device,
    EngineName,
    PolicyName,
    Precision,
    Preprocess,
    RunnerName,
    SplitsFrom,
)
from mission9.schema import FEATURES
from mission9.storage.location import as_text, normalized, without_file
from mission9.storage.s3.address import address_of

Flag = Annotated[bool, Parameter(negative="")]

ENV_PREFIX = "MISSION9_"
_SHARE = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")  # a number with a decimal point

# Variables that Kubernetes sets (MISSION9_SERVICE_HOST, MISSION9_PORT_80_TCP_ADDR and so on), with the form of their
# values.
_SERVICE, _PORT = rf"{ENV_PREFIX}([A-Z0-9_]+_)?", r"PORT_\d+_(TCP|UDP|SCTP)"
_OF_SERVICES = tuple(
    (re.compile(_SERVICE + name), re.compile(value))
    for name, value in {
        "SERVICE_HOST": r"[\w.:-]+",
        r"SERVICE_PORT(_[A-Z0-9_]+)?": r"\d+",
        rf"(PORT|{_PORT})": r"(tcp|udp|sctp)://\S+:\d+",
        f"{_PORT}_PROTO": "tcp|udp|sctp",
        f"{_PORT}_PORT": r"\d+",
        f"{_PORT}_ADDR": r"[\w.:-]+",
    }.items()
)

_DEFAULT_INPUT = "dataset/fruits-360_dataset/fruits-360"

_MAX_SETTINGS_BYTES = 1024 * 1024

# The sections of `mission9 run --help`; settings without a section come last.
_SECTIONS = {
    "Images and results": (
        *("input", "output", "config", "splits", "label_level", "all_files", "follow_links", "verify_content"),
        *("overwrite", "plain_csv", "no_report"),
    ),
    "Features": ("weights", "preprocess", "decode", "precision", "device", "engine", "batch_size"),
    "PCA": ("components", "pca_model"),
    "Runner": ("runner", "workers", "master", "driver_memory", "executor_memory", "spark_ui"),
    "Limits": ("max_reject_rate", "max_pixels", "max_bytes"),
    "Data protection": ("policy", "pseudonymise", "encrypt_key"),
    "Tracking": ("mlflow", "estimate"),
}

_LOCAL = re.compile(r"local\[(\*|0*[1-9]\d*)(\s*,\s*0*[1-9]\d*)?\]")

# Settings that may name a file or folder; each also accepts a `Path`.
_PLACES = ("input", "output", "weights", "pca_model", "mlflow", "estimate", "pseudonymise", "encrypt_key")

_MEMORY = r"^\d+[kmgtKMGT]$"  # Java's syntax; without a unit, Java would read bytes


@Parameter(name="*")
class RunConfig(BaseSettings):
    """The settings of one run; immutable.

    `RunConfig(input="images")` takes values from its arguments, then from environment variables (MISSION9_INPUT), then
    from the TOML file named by `config`, then from the defaults below. An empty variable counts as unset.

    Raises:
        ConfigError: a setting is unknown or its value is invalid.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        validate_default=True,
    )

    input: str = Field(
        _DEFAULT_INPUT,
        description="Folder of images, a pack, s3://BUCKET/PREFIX or a URL of fsspec: Training/LABEL/ and Test/LABEL/, "
        "or just LABEL/.",
    )
    output: str = Field("data/Results", description="Folder for the results, or s3://BUCKET/PREFIX; made if absent.")
    weights: str = Field("imagenet", description="imagenet, demo, or a .pth or .safetensors file.")
    preprocess: Preprocess = Field("stretch", description="stretch: both sides to 224 pixels; crop: the middle.")
    decode: Decode = Field("exact", description="fast: large JPEGs at a reduced size, for almost the same features.")
    components: int | float = Field(50, description="PCA components, or the share of variance to keep (0.95).")
    device: Device = Field("auto", description="Device that computes the features; auto: a GPU if any.")
    engine: EngineName = Field(
        "auto", description="Engine that computes them; auto: openvino on a CPU, torch on a GPU."
    )
    precision: Precision = Field("float32", description="Arithmetic: also bf16, int8 (CPU); bfloat16, float16 (GPU).")
    batch_size: int | None = Field(None, ge=1, description="Images at a time; default: chosen by the engine.")
    runner: RunnerName = Field(
        "auto", description="spark, or local: worker processes without Java; auto: spark if possible."
    )
    workers: int | None = Field(None, ge=1, description="Worker processes of --runner local; default: one a core.")
    master: str | None = Field(None, description="Spark master: local[4], spark://..., yarn; default: all cores here.")
    spark_ui: Flag = Field(False, description="Serve Spark's web page, without a password, during the run.")
    max_reject_rate: float = Field(0.05, ge=0, le=1, description="Fail when more than this share is rejected.")
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=2 * MAX_PIXELS, description="Reject pictures of more pixels.")
    max_bytes: int = Field(MAX_BYTES, ge=1, description="Reject files of more bytes.")
    verify_content: Flag = Field(False, description="Detect changes by content, instead of by size and time.")
    pca_model: str | None = Field(
        None, description="Folder pca_model of an earlier run, to use instead of a new model."
    )
    mlflow: str | None = Field(
        None,
        description="MLflow server to log the run to, or local for mlflow.db and mlruns/ here "
        "[env: MLFLOW_TRACKING_URI].",
        validation_alias="MLFLOW_TRACKING_URI",
    )
    estimate: str | None = Field(None, description="File of mission9 estimate --save, to compare this run with.")
    policy: PolicyName | None = Field(
        None,
        description="eu: buckets must be in the EU, encrypted, not public, and ask for TLS; no other stores; default: "
        "eu where images or results are in a bucket, else none.",
    )
    pseudonymise: str | None = Field(
        None,
        description="Key, env:NAME or a file: published tables hold pseudonyms instead of paths.",
    )
    encrypt_key: str | None = Field(
        None,
        description="Key, env:NAME or a file: all Parquet files are encrypted, and neither CSV nor page is written.",
    )
    all_files: Flag = Field(False, description="List every file, with any extension, also in folders of tools.")
    splits: SplitsFrom = Field(
        "auto",
        description="Folders like Training, valid or test_set are splits; auto: where that is clear; folders: also "
        "next to labels; none: all are labels.",
    )
    label_level: int | None = Field(
        None,
        ge=1,
        description="Folder that is the label: 1 is the first below the split, 2 the next; default: the one that holds "
        "the image.",
    )
    follow_links: Flag = Field(False, description="Follow links that lead out of the input.")
    plain_csv: Flag = Field(False, description="No apostrophe in the CSV before labels and paths like =SUM(A1).")
    no_report: Flag = Field(False, description="Write no report.html; mission9 report writes it later.")
    overwrite: Flag = Field(False, description="Compute everything again; allow an output with other files.")
    driver_memory: str = Field(
        "8g",
        pattern=_MEMORY,
        description="Spark driver memory [env: SPARK_DRIVER_MEMORY].",
        validation_alias="SPARK_DRIVER_MEMORY",
    )
    executor_memory: str = Field(
        "8g",
        pattern=_MEMORY,
        description="Spark executor memory [env: SPARK_EXECUTOR_MEMORY].",
        validation_alias="SPARK_EXECUTOR_MEMORY",
    )
    config: Path | None = Field(None, description="TOML file of settings, such as max_reject_rate = 0.1.")

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigError(explain(error)) from error

    @field_validator(*_PLACES, mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return as_text(value)

    @field_validator("master")
    @classmethod
    def _has_threads(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("local[") and not _LOCAL.fullmatch(value):
            raise ValueError("give local[N], local[N,FAILURES], at least 1 each, or local[*]")
        return value

    @field_validator("input", "output", "weights", "pca_model")
    @classmethod
    def _is_text(cls, value: str | None) -> str | None:
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise ValueError("the path is not UTF-8, which tables cannot hold; rename it, or make a link") from error
        return value

    @field_validator("input", "output", "weights", "pca_model")
    @classmethod
    def _is_in_reach(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        is_input = info.field_name == "input"
        return normalized(found_input(without_file(value)) if is_input else value, any_store=is_input)

    @field_validator("components", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("give a number")
        # Text comes from the command line or the environment: 50 is a number of components, 1.0 is a share.
        return float(value) if isinstance(value, str) and _SHARE.fullmatch(value.strip()) else value

    @field_validator("components")
    @classmethod
    def _components_in_range(cls, value: int | float) -> int | float:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(f"give a whole number from 1 to {FEATURES}, or a share of variance between 0 and 1")
        if isinstance(value, int) and not 1 <= value <= FEATURES:
            raise ValueError(f"an image has {FEATURES} features: give 1 to {FEATURES} components, or a share like 0.95")
        return value

    @model_validator(mode="after")
    def _model_has_its_components(self) -> Self:
        if self.pca_model is not None and "components" in self.model_fields_set:
            raise ValueError("the components are those of --pca-model: leave --components away")
        return self

    @model_validator(mode="after")
    def _is_encrypted_in_a_folder(self) -> Self:
        if self.encrypt_key is not None and address_of(self.output):
            raise ValueError("only results in a folder are encrypted by mission9: have the bucket do it (--policy eu)")
        return self

    @classmethod
    def settings_customise_sources(  # a hook of pydantic-settings, with its signature
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        _refuse_unknown_environment(set(cls.model_fields))
        given = getattr(init_settings, "init_kwargs", {}).get("config") or os.environ.get(f"{ENV_PREFIX}CONFIG")
        if not given:
            return init_settings, env_settings
        if not Path(given).is_file():
            raise ConfigError(f"there is no settings file {given}; give a TOML file with --config, or none")
        if os.path.getsize(given) > _MAX_SETTINGS_BYTES:
            raise ConfigError(f"the settings file {given} is larger than settings are")
        try:
            return init_settings, env_settings, _TomlFile(settings_cls, Path(given))
        except OSError as error:
            raise ConfigError(f"the settings file {given} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"the settings file {given} is not TOML: it is not UTF-8; save it as UTF-8") from error
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"the settings file {given} is not TOML: {error}") from error


class _TomlFile(TomlConfigSettingsSource):
    """The settings of a TOML file, without the byte order mark that Windows editors may write."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return tomllib.loads(file_path.read_bytes().decode("utf-8-sig"))


def _arrange_help() -> None:
    """Add to each setting its section of the help and its environment variable."""
    for title, names in _SECTIONS.items():
        section = Parameter(group=Group.create_ordered(title))
        for name in names:
            RunConfig.model_fields[name].metadata.append(section)
    for name, field in RunConfig.model_fields.items():
        if field.validation_alias is None:
            field.description = f"{field.description} [env: {ENV_PREFIX}{name.upper()}]"


_arrange_help()


def found_input(place: str) -> str:
    """The location of the images; if the default does not exist, the folder one level deeper that holds both splits.

    `unzip` creates that folder from an archive of Fruits-360 in dataset/fruits-360_dataset.
    """
    if place != _DEFAULT_INPUT or os.path.lexists(place):
        return place
    found = [
        str(folder.parent) for folder in Path(place).parent.glob("*/*/Training") if (folder.parent / "Test").is_dir()
    ]
    small = [folder for folder in found if "original" not in folder]
    named = [folder for folder in small if "100x100" in folder] or small
    return named[0] if len(named) == 1 else place


def explain(error: ValidationError) -> str:
    """A description of each invalid setting, joined by semicolons."""
    lines = []
    for item in error.errors():
        name = str(item["loc"][0]) if item["loc"] else "settings"
        if item["type"] == "extra_forbidden":
            lines.append(f"{name} is not a setting; there are: {', '.join(RunConfig.model_fields)}")
        else:
            lines.append(f"{name} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(dict.fromkeys(lines))


def _refuse_unknown_environment(names: set[str]) -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in names}
    ours = {key: value for key, value in os.environ.items() if key.upper().startswith(ENV_PREFIX) and value}
    unknown = sorted(key for key, value in ours.items() if key.upper() not in known and not _is_of_service(key, value))
    if unknown:
        raise ConfigError(f"the environment sets {', '.join(unknown)}, which mission9 does not know; unset it")


def _is_of_service(name: str, value: str) -> bool:
    """True if Kubernetes set a variable, as it does in each pod for a Service named mission9 or mission9-ui."""
    return any(kind.fullmatch(name) and form.fullmatch(value) for kind, form in _OF_SERVICES)

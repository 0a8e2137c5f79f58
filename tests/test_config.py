from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mission9.config import RunConfig
from mission9.errors import ConfigError


def test_defaults_are_those_of_the_original_project() -> None:
    config = RunConfig()
    assert config.input == "dataset/fruits-360_dataset/fruits-360"
    assert config.output == "data/Results"
    assert config.components == 50
    assert config.driver_memory == config.executor_memory == "8g"


def test_command_line_beats_environment_beats_file_beats_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('output = "file"\nbatch_size = 3\ncomponents = 7\n')
    monkeypatch.setenv("MISSION9_OUTPUT", "environment")
    monkeypatch.setenv("MISSION9_BATCH_SIZE", "4")
    config = RunConfig(output="given", config=file)
    assert (config.output, config.batch_size, config.components, config.preprocess) == ("given", 4, 7, "stretch")


def test_the_file_can_be_named_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.toml").write_text("components = 0.9\n")
    monkeypatch.setenv("MISSION9_CONFIG", str(tmp_path / "settings.toml"))
    assert RunConfig().components == 0.9


def test_spark_memory_from_the_environment_and_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.toml").write_text('driver_memory = "3g"\nexecutor_memory = "5g"\n')
    monkeypatch.setenv("SPARK_DRIVER_MEMORY", "2g")
    config = RunConfig(config=tmp_path / "settings.toml")
    assert (config.driver_memory, config.executor_memory) == ("2g", "5g")
    assert RunConfig(driver_memory="1g").driver_memory == "1g"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": 0}, "1280 features"),
        ({"components": -1}, "1280 features"),
        ({"components": 2000}, "1280 features"),
        ({"components": 1.5}, "between 0 and 1"),
        ({"components": "many"}, "components"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_reject_rate": 2}, "max_reject_rate"),
        ({"preprocess": "zoom"}, "preprocess"),
        ({"driver_memory": "lots"}, "driver_memory"),
        ({"inptu": "x"}, "inptu is not a setting"),
        ({"config": "nowhere.toml"}, "no settings file"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig(**settings)


def test_unknown_keys_are_refused_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.toml").write_text("inptu = 1\n")
    with pytest.raises(ConfigError, match="inptu"):
        RunConfig(config=tmp_path / "settings.toml")
    monkeypatch.setenv("MISSION9_INPTU", "x")
    with pytest.raises(ConfigError, match="MISSION9_INPTU"):
        RunConfig()


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("input: x\n")
    with pytest.raises(ConfigError, match="settings.toml"):
        RunConfig(config=tmp_path / "settings.toml")


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(Exception, match="frozen"):
        RunConfig().output = "elsewhere"

"""Estimates of a run: the probe is real, and so is the run that it is compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mission9.cli import main
from mission9.config import RunConfig
from mission9.errors import ConfigError
from mission9.estimate.instances import Instance, find_instances, note
from mission9.estimate.interval import Interval
from mission9.estimate.predict import predict_here, predict_there
from mission9.estimate.probe import Probe, _parts
from mission9.estimate.probe import probe as measure
from mission9.estimate.saved import HERE, compare, read_estimate
from mission9.pack.make_pack import make_pack
from mission9.pipeline.run import run
from mission9.runners.base import InProcessRunner
from mission9.stages.prepare_images import ImageRow


def probe(**facts: Any) -> Probe:
    settings: dict[str, Any] = {
        "images": 10_000, "sampled": 200, "rejected": {}, "workers": 2, "device": "cpu",
        "seconds": Interval(0.0045, 0.005, 0.0055), "cpu_seconds": 0.001, "list_seconds": 1.0,
    }  # fmt: skip
    return Probe(**(settings | facts))


def machine(**facts: Any) -> Instance:
    settings: dict[str, Any] = {"name": "c6i.4xlarge", "vcpus": 16, "price": 0.73, "emr": 0.17}
    return Instance(**(settings | facts))


def test_the_interval_of_a_mean_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = sum(Interval.of_mean(rng.normal(5, 1, 8).tolist()).holds(5) for _ in range(1000))
    assert 930 < held < 970


def test_a_million_images_here() -> None:
    run = predict_here(probe(), 1_000_000).run_minutes
    assert run.low < run.mid < run.high
    # 200 images/s each, on two workers, and what gathering and listing take.
    assert run.mid == pytest.approx((1_000_000 / 400 + 8 + 300 + 100) / 60)


def test_more_machines_take_less_time_and_their_start_is_paid_by_each() -> None:
    one, four = (predict_there(probe(), 1_000_000, machine(), count) for count in (1, 4))
    extraction = [(item.run_minutes.mid * 60 - 408) for item in (one, four)]  # the rest is not shared out
    assert extraction[1] == pytest.approx(extraction[0] / 4)
    assert four.minutes.mid - four.run_minutes.mid == one.minutes.mid - one.run_minutes.mid == 9
    assert four.cost.mid == pytest.approx(four.minutes.mid / 60 * 4 * (0.73 + 0.17))
    assert four.cost.mid > one.cost.mid


def test_a_gpu_that_cores_cannot_feed_is_no_faster_than_they_are() -> None:
    small, large = (
        predict_there(probe(cpu_seconds=0.002), 10**6, machine(gpu="T4", vcpus=vcpus), 1) for vcpus in (4, 64)
    )
    assert small.run_minutes.mid > large.run_minutes.mid
    starved = predict_there(probe(cpu_seconds=0.01), 10**6, machine(gpu="T4", vcpus=4), 1)
    assert starved.run_minutes.mid == pytest.approx((10**6 * 0.01 / 0.8 / 2 + 8 + 300 + 100) / 60)


def test_a_gpu_is_no_faster_than_the_process_that_feeds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mission9.estimate.predict.gpu_rates", lambda _: (20_000.0, 40_000.0))  # of a later GPU
    found = predict_there(probe(cpu_seconds=1e-6), 10**6, machine(gpu="L4", vcpus=64), 1)
    assert found.run_minutes.mid == pytest.approx((10**6 / 7000 + 8 + 300 + 100) / 60)


def test_the_network_of_a_gpu_tells_nothing_of_a_machine_without() -> None:
    with pytest.raises(ConfigError, match="has no GPU, but the probe used one"):
        predict_there(probe(device="cuda"), 1000, machine(), 1)


def test_prices_are_of_a_list_that_says_how_far_to_trust_it_or_yours() -> None:
    (listed,), (own,) = find_instances(["g4dn.xlarge"]), find_instances(["g4dn.xlarge"], ["g4dn.xlarge=0.4"])
    assert own.price == 0.4 != listed.price
    assert own.emr == listed.emr > 0
    assert "check them" in note()
    assert "noted on 20" in note()
    for wrong in ("g4dn.xlarge", "g4dn.xlarge=free", "g4dn.xlarge=0", "g4dn.xlarge=nan", "g4dn.xlarge=inf"):
        with pytest.raises(ConfigError, match="pass TYPE=USD"):
            find_instances([], [wrong])
    with pytest.raises(ConfigError, match=r"the machine type p9.huge is unknown: pass one of m5.xlarge"):
        find_instances(["p9.huge"])


def test_an_estimate_is_kept_and_the_run_is_held_against_it(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, machines = (
        tmp_path / "estimate.json",
        ["--machine", "g4dn.xlarge", "--count", "2", "--price", "g4dn.xlarge=1"],
    )
    command = ["estimate", "--input", str(tree), "--weights", "demo", "--workers", "1", "--save", str(kept), *machines]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("probe: 15 of 15 images on 1 workers (cpu): ")
    assert lines[1].startswith("this machine: 15 images in ")
    assert lines[2].startswith("2 x g4dn.xlarge: 15 images in ")
    assert "USD (" in lines[2]
    config = RunConfig(
        input=str(tree), output=str(tmp_path / "out"), weights="demo", components=2, estimate=str(kept), no_report=True
    )
    run(config, InProcessRunner())
    found = json.loads((tmp_path / "out/run.json").read_text())["estimate"]
    assert (found["images"], found["images_inferred"], found["comparable"]) == (15, 15, True)
    assert found["predicted"]["machine"] == HERE
    low, _, high = found["predicted"]["run_minutes"]
    assert found["within"] == (low <= found["actual_minutes"] <= high)
    run(config, InProcessRunner())
    again = json.loads((tmp_path / "out/run.json").read_text())["estimate"]
    assert (again["images_inferred"], again["comparable"]) == (0, False)


def test_images_of_a_pack_are_read(tree: Path, tmp_path: Path) -> None:
    make_pack(str(tree), str(tmp_path / "pack"), workers=1)
    found = measure(RunConfig(input=str(tmp_path / "pack"), weights="demo", workers=1))
    assert (found.sampled, found.images, found.rejected) == (15, 15, {})


@pytest.mark.slow
def test_rejects_are_told_and_no_speed_where_there_are_only_those(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        (tree / "Training" / name).write_text("no picture")
    (tree / "Test/a/0.jpg").write_bytes(b"")
    command = ["estimate", "--weights", "demo", "--workers", "1", "--input"]
    assert main([*command, str(tree)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("rejected of these: 2 not_an_image, 1 empty; ")
    (tmp_path / "texts").mkdir()
    for number in range(12):
        (tmp_path / "texts" / f"{number}.jpg").write_text("no picture")
    assert main([*command, str(tmp_path / "texts"), "--save", str(tmp_path / "kept.json")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "all 12 sampled images of" in said.err
    assert "were rejected (12 not_an_image)" in said.err
    assert not (tmp_path / "kept.json").exists()


def test_where_an_estimate_cannot_be_kept_is_told_before_the_probe(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(place: str) -> str:
        assert main(["estimate", "--input", str(tree), "--weights", "demo", "--save", place]) == 2
        said = capsys.readouterr()
        assert said.out == ""  # neither a probe nor a folder of the name of a bucket
        return said.err

    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert f"the folder {tmp_path / 'none'} does not exist: create it" in told("none/estimate.json")
    assert "--save s3://bucket/estimate.json: an estimate is saved in a local file" in told("s3://bucket/estimate.json")
    assert "is a folder: pass a file in it" in told(str(tree))
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root, who may write anywhere
    assert f"{tmp_path} cannot be written: pass a file in another folder" in told("estimate.json")
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_elsewhere_is_held_against_the_first_machine_that_is_not_this() -> None:
    bounds = {"run_minutes": [1.0, 2.0, 3.0]}
    names = (HERE, "g4dn.xlarge", "g5.xlarge")
    estimate: dict[str, Any] = {"images": 10, "predictions": [{"machine": name, **bounds} for name in names]}
    found = compare(estimate, seconds=150, inferred=10, elsewhere=True)
    assert (found["predicted"]["machine"], found["within"], found["actual_minutes"]) == ("g4dn.xlarge", True, 2.5)
    assert compare(estimate, seconds=200, inferred=10, elsewhere=True)["within"] is False
    here_alone = {"images": 10, "predictions": estimate["predictions"][:1]}
    assert compare(here_alone, seconds=150, inferred=10, elsewhere=True)["predicted"] is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"images": 1, "predictions": [{"machine": "a", "run_minutes": [1]}]}', "\udcff"]
)
def test_what_is_no_estimate_is_refused_before_the_run(text: str, tmp_path: Path, tree: Path) -> None:
    file = tmp_path / "estimate.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match="is not an estimate: write one with mission9 estimate --save"):
        read_estimate(str(file))
    config = RunConfig(input=str(tree), output=str(tmp_path / "out"), weights="demo", estimate=str(file))
    with pytest.raises(ConfigError, match="is not an estimate"):
        run(config, InProcessRunner())
    assert not (tmp_path / "out").exists()


def test_an_estimate_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_estimate(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--precision", "int8"], "int8 cannot be estimated"),
        (["--count", "0"], "give at least 1"),
        (["--images", "0"], "give at least 1"),
        (["--machine", "nothing"], "the machine type nothing is unknown"),
    ],
)
def test_what_cannot_be_estimated_is_told_in_a_line(
    words: list[str], told: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", "--input", str(tree), "--weights", "demo", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "workers", "parts"), [(200, 2, 8), (200, 16, 33), (200, 200, 200), (3, 2, 3), (1, 1, 1)]
)
def test_all_workers_have_work_and_each_image_is_done_once(images: int, workers: int, parts: int) -> None:
    rows = [ImageRow(str(number), "all", "a", 1) for number in range(images)]
    found = _parts(rows, workers)
    assert len(found) == parts
    assert sorted(row for part in found for row in part) == sorted(rows)


@pytest.mark.slow
def test_a_run_here_takes_about_what_was_told(sample: Path, tmp_path: Path) -> None:
    kept = tmp_path / "estimate.json"
    assert main(["estimate", "--input", str(sample), "--weights", "demo", "--workers", "2", "--save", str(kept)]) == 0
    output = str(tmp_path / "out")
    settings: dict[str, Any] = {
        "input": str(sample),
        "output": output,
        "weights": "demo",
        "runner": "local",
        "workers": 2,
    }
    found = run(RunConfig(**settings, estimate=str(kept))).estimate
    low, _, high = found["predicted"]["run_minutes"]
    assert low / 2 < found["actual_minutes"] < high * 2  # other work on the machine may come and go


@pytest.mark.parametrize(("words", "is_due"), [([], True), (["--decode", "fast"], False)])
def test_fast_decoding_is_hinted_at_where_it_pays(
    words: list[str], is_due: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (4000, 5000, 3), np.uint8)  # longer to decode than to infer
    for number in range(4):
        Image.fromarray(noise).save(tmp_path / "images" / "a" / f"{number}.jpg", quality=90)
    assert main(["estimate", "--input", str(tmp_path / "images"), "--weights", "demo", "--workers", "1", *words]) == 0
    assert ("100% are large JPEGs: --decode fast" in capsys.readouterr().out) == is_due

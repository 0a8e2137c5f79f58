from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from mission9 import pca
from mission9.errors import ConfigError, ModelError
from mission9.pca import Moments, PCAModel, moments_of
from mission9.results.export import to_sklearn
from tests.conftest import SHARED


def data(rows: int = 400, features: int = 30, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, features)) @ rng.normal(size=(features, features))


def fitted(rows: NDArray[Any], k: int | float, *, whiten: bool = False) -> PCAModel:
    return pca.fit(moments_of([rows], rows.shape[1]), k, whiten=whiten)


def assert_equals_sklearn(rows: NDArray[Any], k: int | float) -> None:
    ours, theirs = fitted(rows, k), PCA(k, svd_solver="full").fit(rows)
    np.testing.assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, atol=1e-6)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(ours.mean_, theirs.mean_, rtol=1e-9)
    wanted = theirs.transform(rows)
    assert np.linalg.norm(ours.transform(rows) - wanted) <= 1e-4 * np.linalg.norm(wanted)
    np.testing.assert_allclose(ours.components_, theirs.components_, atol=1e-6)  # signs too


def test_equals_sklearn() -> None:
    assert_equals_sklearn(data(), 10)


@pytest.mark.real
def test_equals_the_golden_pca() -> None:
    golden = np.load(SHARED / "golden" / "fruits-64.npz")
    model = fitted(golden["features"], 5)
    np.testing.assert_allclose(model.mean_, golden["pca_mean"], rtol=1e-9)
    np.testing.assert_allclose(model.components_, golden["pca_components"], atol=1e-8)
    np.testing.assert_allclose(model.explained_variance_, golden["pca_explained_variance"], rtol=1e-8)
    np.testing.assert_allclose(model.transform(golden["features"]), golden["pca_projection"], atol=1e-7)


def test_equals_sklearn_far_from_the_origin() -> None:
    assert_equals_sklearn(np.random.default_rng(1).normal(1e4, 1, (500, 20)), 5)


def test_float32_rows_are_taken_in_float64() -> None:
    # scikit-learn would compute these in float32, and lose digits far from the origin.
    rows = np.random.default_rng(1).normal(1e4, 1, (500, 20)).astype(np.float32)
    np.testing.assert_array_equal(fitted(rows, 5).components_, fitted(rows.astype(np.float64), 5).components_)


def test_equals_sklearn_with_constant_columns_and_repeated_rows() -> None:
    rows = np.repeat(data(100), 3, axis=0)
    rows[:, [2, 5]] = 7.0
    assert_equals_sklearn(rows, 8)


@pytest.mark.parametrize("features", [40, 60, 400])  # of 60 and more, a factor of the few rows is decomposed
def test_equals_sklearn_with_fewer_rows_than_columns(features: int) -> None:
    assert_equals_sklearn(data(rows=12, features=features), 8)


@pytest.mark.parametrize("rows", [4, 12, 13])
def test_few_rows_are_decomposed_as_exactly_as_many(rows: int) -> None:
    few = np.random.default_rng(rows).normal(1e4, np.logspace(0, -4, 65), (rows, 65))
    few[1::2] = few[0]  # half of them are one and the same: the rank is far below their number
    few[:, ::5] = few[0, ::5]
    centred = few - few.mean(0)
    lengths = np.linalg.svd(centred, compute_uv=False)[: rows - 1]
    model = fitted(few, rows - 1)
    np.testing.assert_allclose(model.explained_variance_, lengths**2 / (rows - 1), atol=1e-13 * lengths[0] ** 2)
    np.testing.assert_allclose(model.components_ @ model.components_.T, np.eye(rows - 1), atol=1e-13)
    np.testing.assert_allclose(model.transform(few) @ model.components_, centred, atol=1e-7 * lengths[0])


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.999])
def test_a_share_of_variance_takes_as_many_components_as_sklearn(share: float) -> None:
    rows = data()
    assert fitted(rows, share).n_components_ == PCA(share, svd_solver="full").fit(rows).n_components_


def test_whitened_as_sklearn() -> None:
    rows = data()
    np.testing.assert_allclose(
        fitted(rows, 4, whiten=True).transform(rows), PCA(4, whiten=True).fit_transform(rows), atol=1e-6
    )


def test_components_are_orthonormal_scores_centred_and_inverse_returns() -> None:
    rows = data()
    model = fitted(rows, 30)
    np.testing.assert_allclose(model.components_ @ model.components_.T, np.eye(30), atol=1e-10)
    np.testing.assert_allclose(model.transform(rows).mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(model.inverse_transform(model.transform(rows)), rows, atol=1e-8)


def test_uncentred_scores_are_spark_mls_convention() -> None:
    rows = data()
    model = fitted(rows, 3)
    np.testing.assert_allclose(model.transform(rows, centre=False), rows @ model.components_.T)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.randoms())
def test_moments_do_not_depend_on_how_rows_are_shared_out(sizes: list[int], random: Random) -> None:
    rows = data(rows=sum(sizes), features=6) + 1e4
    parts = [Moments.of(part) for part in np.split(rows, np.cumsum(sizes)[:-1])]
    random.shuffle(parts)
    merged = reduce(Moments.merge, parts)
    assert merged.count == len(rows)
    if len(rows):
        np.testing.assert_allclose(merged.mean, rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(merged.scatter, Moments.of(rows).scatter, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 150, 290, 300])
def test_moments_without_some_rows_are_those_of_the_others(count: int) -> None:
    rows = np.random.default_rng(3).normal(5, 2, (300, 20)) @ np.diag(np.logspace(0, -3, 20))
    left = Moments.of(rows).subtract(Moments.of(rows[:count]))
    wanted = Moments.of(rows[count:])
    assert left.count == wanted.count
    assert np.linalg.norm(left.scatter - wanted.scatter) <= 1e-12 * np.linalg.norm(Moments.of(rows).scatter)
    np.testing.assert_allclose(left.mean, wanted.mean, rtol=1e-10)
    if left.count > 10:
        found, fresh = pca.fit(left, 10), pca.fit(wanted, 10)
        np.testing.assert_allclose(found.components_, fresh.components_, atol=1e-6)
        np.testing.assert_allclose(found.explained_variance_, fresh.explained_variance_, rtol=1e-6)


def test_moments_survive_a_trip_as_bytes() -> None:
    moments = Moments.of(data())
    back = Moments.from_bytes(moments.to_bytes())
    assert back.count == moments.count
    np.testing.assert_array_equal(back.scatter, moments.scatter)


@pytest.mark.filterwarnings("error")
def test_rows_all_equal_have_no_variance_and_no_nan(caplog: pytest.LogCaptureFixture) -> None:
    model = fitted(np.ones((50, 8)), 3)
    assert model.explained_variance_ratio_.tolist() == [0, 0, 0]
    assert np.isfinite(model.transform(np.ones((2, 8)))).all()
    assert "explain nothing" in caplog.text


def test_numbers_of_numpy_are_numbers() -> None:
    rows = data()
    assert fitted(rows, np.int64(3)).n_components_ == 3  # type: ignore[arg-type]
    assert fitted(rows, np.float32(0.5)).n_components_ == fitted(rows, 0.5).n_components_  # type: ignore[arg-type]


def test_a_share_never_takes_more_components_than_rows() -> None:
    rows = data(rows=10, features=40)
    share = float(np.nextafter(1, 0))
    assert fitted(rows, share).n_components_ <= 10
    with pytest.raises(ConfigError, match="all the same"):
        fitted(np.ones((4, 8)), 0.95)


def test_whitening_where_nothing_varies_gives_zeros() -> None:
    assert fitted(np.ones((4, 8)), 2, whiten=True).transform(np.ones((3, 8))).tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("k", [0, -1, 31, 1.0, 1.5, 0.0, True, np.int64(31), "3"])
def test_impossible_numbers_of_components(k: int | float) -> None:
    with pytest.raises(ConfigError, match="give 1 to 30"):
        fitted(data(), k)


def test_more_components_than_rows_and_too_few_rows() -> None:
    with pytest.raises(ConfigError, match="give 1 to 12"):
        fitted(data(rows=12), 13)
    with pytest.raises(ConfigError, match="at least 2 images"):
        fitted(data(rows=1), 1)


def test_saved_and_loaded_models_are_the_same(tmp_path: Path) -> None:
    rows = data()
    model = fitted(rows, 5, whiten=True)
    model.save(tmp_path, {"preprocess": "stretch"})
    loaded = PCAModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.transform(rows), model.transform(rows))
    assert loaded.facts["preprocess"] == "stretch"
    np.testing.assert_array_equal(loaded.moments.scatter, model.moments.scatter)


def test_a_model_without_moments_gives_the_same_scores_and_tells_of_no_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(30, 6))
    model = pca.fit(Moments.of(rows), 2)
    model.without_moments().save(tmp_path)
    found = PCAModel.load(tmp_path, features=6)
    np.testing.assert_array_equal(found.transform(rows), model.transform(rows))
    assert (found.n_samples_, found.sha256) == (0, model.sha256)
    with pytest.raises(ModelError, match="has no count of images, which scikit-learn needs"):
        to_sklearn(found)
    found.save(tmp_path / "again")
    assert PCAModel.load(tmp_path / "again").sha256 == model.sha256


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no PCA model"):
        PCAModel.load(tmp_path)
    fitted(data(), 5).save(tmp_path)
    arrays = tmp_path / "pca.safetensors"
    good = arrays.read_bytes()
    arrays.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelError, match="damaged"):
        PCAModel.load(tmp_path)
    arrays.write_bytes(good)
    facts = tmp_path / "pca.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"format": 99}))
    with pytest.raises(ModelError, match="another version"):
        PCAModel.load(tmp_path)
    facts.write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        PCAModel.load(tmp_path)

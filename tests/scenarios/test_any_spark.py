"""Only the module of sessions uses features that Spark Connect and serverless Sparks lack."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SOURCES = REPOSITORY / "src" / "mission9"
# Of the JVM and its contexts. `_sc` and `_jsparkSession` lead there too.
FORBIDDEN = {"sparkContext", "SparkContext", "_sc", "_jsc", "_jvm", "_jdf", "_jsparkSession", "_gateway", "rdd", "RDD"}
ALLOWED = {"runners/spark_session.py"}


def touched(source: str) -> set[str]:
    """The forbidden names that a module uses: as an attribute, by import, or as text that getattr may be given."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found |= {node.name, *node.name.split(".")}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found & FORBIDDEN


@pytest.mark.parametrize("module", sorted(SOURCES.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES)))
def test_only_the_session_touches_the_jvm(module: Path) -> None:
    if str(module.relative_to(SOURCES)) not in ALLOWED:
        assert touched(module.read_text()) == set()


@pytest.mark.parametrize(
    "source",
    [
        "spark.sparkContext.broadcast(1)",
        "frame.rdd.map(f)",
        "from pyspark import SparkContext",
        "getattr(spark, '_jvm')",
        "spark._jsc.hadoopConfiguration()",
    ],
)
def test_each_way_to_the_jvm_is_seen(source: str) -> None:
    assert touched(source)


def test_the_session_is_where_it_is_needed() -> None:
    assert all(touched((SOURCES / name).read_text()) for name in ALLOWED)

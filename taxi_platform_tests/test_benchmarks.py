"""The benchmarks take too long to run here, but a name that moved must not wait for somebody to measure."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_every_benchmark_finds_what_it_imports(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").main)

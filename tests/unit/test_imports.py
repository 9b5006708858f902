"""imports: a package can be blocked within a block of code, and nowhere else."""

import importlib
import sys

import pytest

from rampflow.imports import without


def test_a_package_is_missing_in_its_block_only(tmp_path, monkeypatch):
    (tmp_path / "optional_package").mkdir()
    (tmp_path / "optional_package" / "__init__.py").touch()
    (tmp_path / "optional_package" / "part.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with without("optional_package"):
        for name in ("optional_package", "optional_package.part"):
            with pytest.raises(ImportError, match="No module named 'optional_package'"):
                importlib.import_module(name)
    assert importlib.import_module("optional_package.part") is sys.modules["optional_package.part"]
    with without("optional_package"):  # it is loaded already
        assert importlib.import_module("optional_package.part") is sys.modules["optional_package.part"]
    for name in ("optional_package", "optional_package.part"):
        del sys.modules[name]


def test_a_failure_in_the_block_leaves_nothing_behind():
    finders = list(sys.meta_path)
    with pytest.raises(ZeroDivisionError), without("optional_package"):
        1 / 0  # noqa: B018
    assert sys.meta_path == finders

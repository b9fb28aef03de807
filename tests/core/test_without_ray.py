"""The guard of tests/conftest.py, seen from a directory that it guards."""

from __future__ import annotations

import importlib

import pytest


def test_a_test_of_the_core_cannot_import_ray() -> None:
    with pytest.raises(ModuleNotFoundError, match="ray"):
        importlib.import_module("ray")

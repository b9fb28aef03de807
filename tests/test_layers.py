"""Who may import whom: rules <- cluster.core <- cluster.runtime <- cluster.cli <- bench, tests; and who knows what outside.

The same as ruff's banned-api table in pyproject.toml where that can say it, and the directions, which it cannot.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = [
    ["rules"],
    ["cluster.core"],
    [
        "cluster.checkpoints", "cluster.config", "cluster.environment", "cluster.files", "cluster.sinks",
        "cluster.sources", "cluster.spool", "cluster.stores", "cluster.watch",
    ],
    ["cluster.runtime"],
    ["cluster"],  # what is left: the command line and what it calls
    ["bench"],
    ["tests"],
]
"""Lowest first. A module belongs to the first layer that names it or a package above it."""

RULES_MAY_USE = {"jsonpath_ng", "orjson", "yaml"}
"""Beside the standard library: little enough that a pack can be written and tested anywhere."""

CORE_MAY_NOT_USE = {
    *("asyncio", "multiprocessing", "signal", "socket", "subprocess", "threading"),  # a machine waits for nobody
    *("os", "random", "secrets", "time", "uuid"),  # and gives the same effects for the same messages
}

KNOWN_BY = {
    "ray": "cluster.runtime.ray",
    "redis": "cluster.stores.redis",
}


def modules(package: str) -> dict[str, Path]:
    """The package's modules by dotted name. The shipped rules are not among them: they are data."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: path for name, path in names.items() if not name.startswith("rules.packs.")}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(path:line, dotted name) of each import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):  # relative ones have no module here: ruff refuses them
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", name


def top(name: str) -> str:
    return name.partition(".")[0]


def layer(name: str) -> int | None:
    """The number of a module's layer; None for what is not ours."""
    for number, packages in enumerate(LAYERS):
        if any(f"{name}.".startswith(f"{package}.") for package in packages):
            return number
    return None


OURS = {name: path for package in ("rules", "cluster", "bench", "tests") for name, path in modules(package).items()}


def test_no_module_imports_from_a_layer_above_its_own() -> None:
    for name, path in OURS.items():
        own = layer(name)
        assert own is not None
        for place, imported in imports(path):
            assert (layer(imported) or 0) <= own, f"{place}: {name} is below {imported}: move what it needs down"


def test_rules_need_nothing_but_the_standard_library_yaml_and_orjson() -> None:
    for path in modules("rules").values():
        for place, imported in imports(path):
            known = {"rules", *RULES_MAY_USE, *sys.stdlib_module_names}
            assert top(imported) in known, f"{place}: rules/ must not need {imported}"


def test_the_core_has_no_clock_no_randomness_no_environment_and_no_threads() -> None:
    for path in modules("cluster/core").values():
        for place, imported in imports(path):
            assert top(imported) not in CORE_MAY_NOT_USE, f"{place}: a machine gets this in a message, not from {imported}"


@pytest.mark.parametrize("library", KNOWN_BY)
def test_one_module_knows_ray_and_one_knows_redis(library: str) -> None:
    users = {
        name for package in ("rules", "cluster") for name, path in modules(package).items()
        for _, imported in imports(path) if top(imported) == library
    }  # fmt: skip
    assert users == {KNOWN_BY[library]}

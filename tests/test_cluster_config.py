"""ray-config.yaml: what Ray's cluster launcher makes of it, as far as that can be seen without the machines."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "ray-config.yaml").read_text())
    return loaded


def test_the_launcher_accepts_it_and_plans_one_node_for_each_machine(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    (node_type,) = prepared["available_node_types"].values()
    machines = len(config["provider"]["worker_ips"])
    assert (node_type["min_workers"], node_type["max_workers"]) == (machines, machines)


def test_the_launcher_would_refuse_a_field_that_it_does_not_know(config: dict[str, Any]) -> None:
    """So that the test before this one means something."""
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        validate_config(prepare_config({**config, "setup_comands": []}))


@pytest.mark.parametrize("role", ["head", "worker"])
def test_ray_starts_with_token_authentication_and_without_niceness_on_every_machine(
    config: dict[str, Any], role: str
) -> None:
    start = config[f"{role}_start_ray_commands"][-1]
    assert "RAY_AUTH_MODE=token" in start
    assert "RAY_worker_niceness=0" in start
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_every_machine_installs_this_checkout_with_the_locked_versions(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/countersign"] == "."
    assert config["setup_commands"][-1].endswith("-c ~/countersign/.ci/constraints.txt -e ~/countersign")
    assert (ROOT / ".ci/constraints.txt").is_file()


def test_its_commands_are_shell(config: dict[str, Any]) -> None:
    for field in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for command in config[field]:
            subprocess.run(["bash", "-n", "-c", command], check=True)

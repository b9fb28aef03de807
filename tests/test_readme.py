"""The README is true: what one would type is run, and what exists is in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
import yaml

from cluster import cli
from cluster.config import Config
from cluster.core.coordinator import EVENTS_PER_SHARD
from rules.logtypes import load_definitions, recognise
from tests.commands import COUNTERSIGN, ROOT

README = (ROOT / "README.md").read_text()
REDIS_URL = "redis://localhost:6379/0"
"""What the README writes where a test has a server of its own."""

HERE = "run here"
_LAUNCHER = "tests/test_cluster_config.py::test_the_launcher_accepts_it_and_plans_one_node_for_each_machine"
COMMANDS = {
    # the beginning of a command -> where it is run
    "for minute in ": HERE,
    "countersign run ": HERE,
    "countersign state get ": HERE,
    "countersign state ls ": HERE,
    "countersign state rm ": HERE,
    "countersign rescale ": HERE,
    "countersign stop ": HERE,
    "(cat trail.jsonl; sleep 30) | countersign run - ": HERE,
    "until countersign status ": HERE,
    "countersign test ": HERE,
    "countersign check ": HERE,
    "countersign explain ": "tests/test_explaining.py::test_the_example_of_its_help_works",
    "make demo": "tests/bench/test_demo.py::test_the_demo_finds_what_was_planted",
    "make simulate ": "tests/runtime/test_sim.py::test_fresh_seeds_come_to_what_one_process_would",
    "make chaos ": "tests/test_chaos.py::test_shards_coordinators_nodes_and_redis_are_hurt_and_nothing_differs",
    "make compat ": "tests/test_compat.py::test_the_table_is_printed_with_why_and_ends_as_the_tests_did",
    "python -m bench pat ": "tests/bench/test_pat.py::test_the_smoke_without_pat_says_so_and_times_our_side",
    "make test": ".ci/run",  # this very run
    "ray get-auth-token --generate": "tests/test_job_submit.py::head",
    "RAY_AUTH_MODE=token ray job submit ": "tests/test_job_submit.py::test_a_job_submitted_with_the_token_raises_the_alert",
    # Planned, not done: there are no machines to do it to.
    "ray up ray-config.yaml": _LAUNCHER,
    "ray dashboard ray-config.yaml": _LAUNCHER,
    "ray down ray-config.yaml": _LAUNCHER,
    "python -m bench": "tests/bench/test_throughput.py::test_without_a_name_the_benchmarks_are_listed",
    "python -m bench state": "tests/bench/test_state.py::test_state_takes_no_more_than_its_share_of_a_bare_dict",
    "python -m bench all ": "tests/bench/test_table.py::test_all_hands_on_what_a_benchmark_takes",
    "python -m bench plot": "tests/bench/test_table.py::test_the_picture_is_a_png",
    "python -m bench throughput": "tests/bench/test_throughput.py::test_the_smoke_run_finds_the_same_matches_on_both_sides",
}


@dataclass(frozen=True)
class Block:
    """A fenced block. `file` is the name that the paragraph before it gives it."""

    language: str
    text: str
    file: str | None
    continues: bool

    @property
    def commands(self) -> list[str]:
        """A line each; a loop is one command."""
        lines = re.sub(r"\\\n\s*", "", self.text)
        return re.findall(r"^(?:for .*?^done.*?|\S.*?)$", lines, re.MULTILINE | re.DOTALL)


def _blocks() -> Iterator[Block]:
    paragraphs = re.split(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    for before, language, text in zip(paragraphs[::3], paragraphs[1::3], paragraphs[2::3], strict=False):
        named = re.fullmatch(r"`([^`]+)`(, continued)?:", (before.strip().splitlines() or [""])[-1])
        yield Block(language, text, named[1] if named else None, bool(named and named[2]))


BLOCKS = list(_blocks())
SHELL = [block for block in BLOCKS if block.language == "sh"]


def _where(command: str) -> str | None:
    """The longest entry of COMMANDS that the command begins with; one without a last space must be all of it."""
    fitting = [name for name in COMMANDS if command == name or (name.endswith(" ") and command.startswith(name))]
    return COMMANDS[max(fitting, key=len)] if fitting else None


def _run(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """As typed into a shell in a directory where `countersign` is installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = f'countersign() {{ {" ".join(COUNTERSIGN)} "$@"; }}\n{script}'
    # Files, not pipes: what goes on in the background would keep those open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        done = subprocess.run(
            ["bash", "-eu", "-c", script], cwd=directory, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=err, timeout=60, check=False,
        )  # fmt: skip
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())


# --- what one would type ---------------------------------------------------------------------------------------------


def test_every_block_is_of_a_known_kind() -> None:
    assert README.count("\n```") == 2 * len(BLOCKS)
    for block in BLOCKS:
        assert block.language in ("sh", "text") or block.file, f"nothing reads this block:\n{block.text}"


def test_every_command_is_run_by_a_test() -> None:
    unknown = [command for block in SHELL for command in block.commands if _where(command) is None]
    assert not unknown, "the README has commands that no test runs: run them here, or name the test in COMMANDS"


def test_a_command_that_is_not_in_the_table_would_be_noticed() -> None:
    for command in ("countersign forget mine", "make bench", "python -m bench recovery", "rm -rf build"):
        assert _where(command) is None


def test_the_table_has_no_command_that_the_readme_lacks() -> None:
    commands = [command for block in SHELL for command in block.commands]
    for name in COMMANDS:
        assert any(command.startswith(name) for command in commands), f"{name}: take it out of COMMANDS"


@pytest.mark.parametrize("place", sorted(set(COMMANDS.values()) - {HERE}))
def test_the_tests_that_the_table_names_exist(place: str) -> None:
    path, _, name = place.partition("::")
    assert (f"def {name}" if name else "make test") in (ROOT / path).read_text()


@pytest.mark.ray
def test_what_the_readme_types_prints_what_it_shows(redis_url: str, tmp_path: Path) -> None:
    """From top to bottom in one directory: files are written, commands run, the output compared with the block after it."""
    ran = printed = 0
    said: str | None = None
    for block in BLOCKS:
        if block.file is not None:
            path = tmp_path / block.file
            path.parent.mkdir(exist_ok=True)
            path.write_text((path.read_text() if block.continues else "") + block.text)
        elif block.language == "sh":
            said = None
            if any(_where(command) != HERE for command in block.commands):
                continue
            done = _run(block.text.replace(REDIS_URL, redis_url), tmp_path)
            assert done.returncode == 0, f"{block.text}\n{done.stderr}"
            assert done.stderr.count("dead letters") == done.stderr.count("0 rule errors, 0 dead letters"), done.stderr
            said = done.stdout
            ran += 1
        elif block.language == "text":
            assert said is not None, f"no command before this prints it:\n{block.text}"
            assert said == block.text
            printed += 1
    assert (ran, printed) == (8, 4)
    assert len((tmp_path / "alerts.jsonl").read_text().splitlines()) == 1
    with redis.Redis.from_url(redis_url) as client:
        ((_, entry),) = client.xrange("alerts")
    assert json.loads(entry[b"record"])["rule_id"] == "My.Denied.TenTimes"


def test_the_first_screen_has_the_rule_the_command_and_the_alert() -> None:
    first = "\n".join(README.splitlines()[:50])
    assert "def rule(event)" in first
    assert "\ncountersign run " in first
    assert "HIGH     My.Denied.TenTimes" in first


def test_the_log_type_that_the_readme_adds_is_recognised_and_read() -> None:
    (block,) = [block for block in BLOCKS if block.text.startswith("LogType:")]
    types = load_definitions({str(block.file): block.text.encode()})
    record: dict[str, Any] = {
        "service": "example", "action": "login", "meta": {"received": "2026-03-02T09:00:00Z"},
        "hops": [{"ip": "192.0.2.1"}],
    }  # fmt: skip

    assert recognise(record, types) == yaml.safe_load(block.text)["LogType"]
    (log_type,) = types.values()
    assert log_type.time_of(record) == 1_772_442_000
    derived = log_type.derive(record, 1_772_442_000.0, (0, 0), "readme")
    assert derived.any()["p_any_ip_addresses"] == ["192.0.2.1"]


# --- what exists -----------------------------------------------------------------------------------------------------


def _commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for part, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name}{part} ")
        else:
            yield f"{name}{part}", command


def test_every_command_and_option_is_in_the_readme() -> None:
    section = README.partition("\n## Commands")[2].partition("\n## ")[0]
    found = dict(_commands(typer.main.get_command(cli.app)))
    assert found
    for name, command in found.items():
        assert f"`countersign {name} " in section, name
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        missing = {option for option in options if re.search(rf"`{option}[ `]", section) is None}
        assert not missing, f"countersign {name}: {missing}"


def test_every_option_in_the_readme_exists() -> None:
    section = README.partition("\n## Commands")[2].partition("\n### Exit codes")[0]
    commands = dict(_commands(typer.main.get_command(cli.app)))
    existing = {option for command in commands.values() for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"`(--[a-z-]+)", section)) <= existing | {"--help"}


def test_defaults_are_those_of_the_command_line() -> None:
    run = dict(_commands(typer.main.get_command(cli.app)))["run"]
    section = README.partition("\n### `countersign run")[2].partition("\n### ")[0]
    shown = dict(re.findall(r"^\| `(--[a-z-]+)[^|]*\| `?([^|`]*)`? \|", section, re.MULTILINE))
    defaults = {p.opts[0]: p.default for p in run.params if isinstance(p.default, str | int | float)}
    expected = {option: f"{value:g}" if isinstance(value, float) else str(value)
                for option, value in defaults.items() if not isinstance(value, bool)}  # fmt: skip
    assert len(expected) == 4
    assert {option: shown[option] for option in expected} == expected
    assert shown["--epoch-events"] == f"{EVENTS_PER_SHARD} for each shard"
    (epoch_events,) = [p for p in run.params if "--epoch-events" in p.opts]
    assert f"{EVENTS_PER_SHARD:,} for each shard" in str(getattr(epoch_events, "help", ""))


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    for setting in fields(Config):
        assert isinstance(setting.default, int | float)
        assert f"| `COUNTERSIGN_{setting.name.upper()}` | {setting.default:.0f} |" in README
    known = {f"COUNTERSIGN_{setting.name.upper()}" for setting in fields(Config)}
    known.add("COUNTERSIGN_PACK")  # of the tests, not of the engine
    assert set(re.findall(r"COUNTERSIGN_[A-Z_]+", README)) == known


def test_every_exit_code_is_in_the_readme() -> None:
    section = README.partition("\n### Exit codes")[2].partition("\n#")[0]
    promised = re.findall(r"^(\d+) ", cli.__doc__ or "", re.MULTILINE)
    assert len(promised) == 6
    assert re.findall(r"^\| (\d+) \|", section, re.MULTILINE) == promised


def test_every_field_of_the_records_is_in_the_readme(tmp_path: Path) -> None:
    """For an alert and its match, which a run writes; the tests of the command line hold the lists for the others."""
    (tmp_path / "mine").mkdir()
    for block in BLOCKS:
        if block.file and block.file.startswith("mine/denied"):
            with (tmp_path / block.file).open("a") as file:
                file.write(block.text)
    (loop,) = [command for block in SHELL for command in block.commands if command.startswith("for ")]
    command = "countersign run trail.jsonl --rules mine --runtime local --alerts alert --matches match --json --quiet"
    done = _run(f"{loop}\n{command}", tmp_path)
    assert done.returncode == 0, done.stderr
    for kind, text in (
        ("alert", (tmp_path / "alert").read_text()),
        ("match", (tmp_path / "match").read_text()),
        ("summary", done.stdout),
    ):
        (row,) = [line for line in README.splitlines() if line.startswith(f"| {kind} | `")]
        assert re.findall(r"`(\w+)`", row.partition("|")[2].partition("|")[2]) == list(json.loads(text))


def test_every_log_type_that_ships_is_in_the_readme() -> None:
    for path in (ROOT / "rules" / "log_types").glob("*.yml"):
        assert f"`{path.stem}`" in README
    shipped = len(list((ROOT / "rules" / "packs").rglob("*.yml")))
    assert f"in `rules/packs/`: {shipped}, for" in README


def _file_table() -> str:
    return README.partition("\n## Files\n")[2]


def test_every_top_level_path_is_in_the_file_table() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    for line in {path.partition("/")[0] + ("/" if "/" in path else "") for path in listed.stdout.splitlines()}:
        assert f"`{line}`" in _file_table(), line


def test_every_path_that_the_readme_names_exists() -> None:
    paths = set(re.findall(r"`([\w.-]+(?:/[\w.-]*)+)`", README)) | set(re.findall(r"`([\w.-]+)`", _file_table()))
    own = {block.file for block in BLOCKS}  # files that its reader makes
    for path in paths - own:
        if path.partition("/")[0] not in (".venv",):
            assert (ROOT / path).exists(), path


def test_every_link_leads_to_a_heading() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", README)) <= headings

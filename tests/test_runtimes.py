"""Every runtime, with any number of shards, gives what one process that reads the events in order gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import workload
from tests.commands import PACKS, run
from tests.oracle import alerts_of, sequential, verdicts_of

OUTPUTS = ("matches.jsonl", "alerts.jsonl", "errors.jsonl")

REAL = (
    "invictus-aws/cloudtrail",
    "opensearch-catalog/cloudtrail",
    "panther-analysis-tests/AWS.CloudTrail",
    "panther-analysis-tests/Okta.SystemLog",
    "panther-analysis-tests/GSuite.ActivityEvent",
    "panther-analysis-scenarios/*/*CloudTrail",
    "panther-analysis-scenarios/*/*Okta.SystemLog",
    "panther-analysis-scenarios/*/*GSuite.ActivityEvent",
    "streamalert-tests/cloudtrail*",
    "streamalert-tests/okta*",
    "cribl/okta-systemlog",
    "cribl/cloudtrail*",
    "invictus-gws/*",
)
"""Every CloudTrail, Okta and GSuite file of the real logs."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("workload")
    workload.write(directory, 20_000, 11)
    return [str(directory / "logs")]


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[str]:
    files = [str(path) for pattern in REAL for path in sorted(shared_data.glob(f"{pattern}.jsonl.gz"))]
    files = [path for path in files if not path.endswith((".expect.jsonl.gz", ".labels.jsonl.gz"))]
    assert len(files) >= 20
    return files


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One shard, local: what all others are compared with, and what the oracle is compared with."""
    return {}


def reference(name: str, inputs: list[str], expected: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if name not in expected:
        expected[name] = tmp_path_factory.mktemp(f"reference-{name}")
        run(*inputs, into=expected[name])
    return expected[name]


def same(one: Path, other: Path) -> None:
    for output in OUTPUTS:
        assert (one / output).read_bytes() == (other / output).read_bytes(), f"{output} differs"


@pytest.mark.parametrize("source", ["generated", "real"])
@pytest.mark.parametrize(
    ("runtime", "shards"), [("local", 3), *[pytest.param("ray", n, marks=pytest.mark.ray) for n in (1, 2, 3)]]
)
def test_the_files_are_byte_identical_for_any_runtime_and_number_of_shards(
    source: str,
    runtime: str,
    shards: int,
    request: pytest.FixtureRequest,
    expected: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    inputs = request.getfixturevalue(source)
    one = reference(source, inputs, expected, tmp_path_factory)
    run(*inputs, into=tmp_path, runtime=runtime, shards=shards)

    same(one, tmp_path)


def test_the_generated_logs_give_what_the_sequential_loop_gives(
    generated: list[str], expected: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = reference("generated", generated, expected, tmp_path_factory)
    matches, alerts = sequential(generated, PACKS)

    assert len(alerts) >= 14
    assert verdicts_of(one / "matches.jsonl") == matches
    assert alerts_of(one / "alerts.jsonl") == alerts


@pytest.mark.parametrize("epoch_events", [7, 500, 100_000])
def test_results_do_not_depend_on_the_size_of_epochs(
    epoch_events: int, generated: list[str], expected: dict[str, Path], tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    inputs = [str(Path(generated[0]) / "okta.jsonl"), str(Path(generated[0]) / "github.jsonl")]
    one = reference("two files", inputs, expected, tmp_path_factory)
    run(*inputs, "--epoch-events", epoch_events, into=tmp_path, shards=2)

    same(one, tmp_path)


@pytest.mark.parametrize("source", ["generated", "real"])
def test_the_index_changes_nothing(
    source: str,
    request: pytest.FixtureRequest,
    expected: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    inputs = request.getfixturevalue(source)
    one = reference(source, inputs, expected, tmp_path_factory)
    without = run(*inputs, "--no-index", "--no-prefilter", into=tmp_path)

    same(one, tmp_path)
    assert without.summary["probes"] > without.summary["events"]


def test_real_cloudtrail_gives_what_the_sequential_loop_gives(
    shared_data: Path, expected: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    inputs = [str(shared_data / "invictus-aws/cloudtrail.jsonl.gz"), str(shared_data / "opensearch-catalog/cloudtrail.jsonl.gz")]
    one = reference("cloudtrail", inputs, expected, tmp_path_factory)
    matches, alerts = sequential(inputs, PACKS)

    assert {"AWS.CloudTrail.PasswordData.Burst", "AWS.CloudTrail.Secrets.Enumeration"} <= {match[0] for match in matches}
    assert verdicts_of(one / "matches.jsonl") == matches
    assert alerts_of(one / "alerts.jsonl") == alerts

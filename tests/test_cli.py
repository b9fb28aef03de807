"""The command line: what it prints, where things go, and its exit codes (DESIGN 9)."""

from __future__ import annotations

import gzip
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.commands import COUNTERSIGN, PACKS, ROOT, countersign, run

RULE = """
from panther_detection_helpers.caching import increment_counter
def rule(event):
    return increment_counter(f"Denied:{event.get('user')}", 1, event.event_time_epoch() + 3600) == 3
def title(event):
    return f"{event.get('user')} was denied 3 times"
"""
YAML = "AnalysisType: rule\nRuleID: Denied\nFilename: denied.py\nEnabled: true\nLogTypes: [App]\nSeverity: High\n"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "denied.py").write_text(RULE)
    (directory / "denied.yml").write_text(YAML)
    return directory


def event(minute: int, user: str = "eve", **fields: Any) -> dict[str, Any]:
    return {"p_log_type": "App", "p_event_time": f"2026-03-02 09:{minute:02}:00", "user": user, **fields}


def lines(*events: Any) -> bytes:
    return b"".join((e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n" for e in events)


def test_an_alert_is_one_line_for_a_person(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(*map(event, range(3))))
    done = countersign("run", "log.jsonl", "--rules", "rules", "--runtime", "local", cwd=tmp_path)

    assert done.code == 0, done.stderr
    assert done.stdout == "2026-03-02T09:02:00Z HIGH     Denied  eve was denied 3 times\n"
    assert "3 events in" in done.stderr
    assert "1 alert, 1 match, 0 rule errors" in done.stderr


def test_the_summary_has_every_promised_field(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(*map(event, range(3))))
    summary = run(tmp_path / "log.jsonl", into=tmp_path, rules=rules).summary

    assert summary["events"] == 3
    assert {
        "events", "skipped_unparsed", "evaluations", "probes", "deferred", "matches", "alerts", "errors", "dead_letters",
        "seconds", "events_per_s", "epochs", "checkpoints", "restarts", "shards",
    } <= set(summary)  # fmt: skip


def test_records_have_the_fields_that_scripts_depend_on(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(*map(event, range(3))))
    run(tmp_path / "log.jsonl", into=tmp_path, rules=rules)
    (match,) = map(json.loads, (tmp_path / "matches.jsonl").read_text().splitlines())
    (alert,) = map(json.loads, (tmp_path / "alerts.jsonl").read_text().splitlines())

    assert list(match) == [
        "rule_id", "event_id", "log_type", "event_time", "title", "dedup", "severity", "context", "alert_id", "position",
    ]  # fmt: skip
    assert list(alert) == [
        "alert_id", "rule_id", "severity", "title", "dedup", "created_at", "first_match_at", "first_event_id", "event_id",
        "match_count", "threshold", "context", "description", "reference", "runbook", "destinations", "log_type", "tags",
        "reports", "position",
    ]  # fmt: skip
    assert (match["position"], match["event_id"]) == ([0, 152], "0:152")
    assert match["alert_id"] == alert["alert_id"]


def test_the_same_events_in_any_container_alert_alike(rules: Path, tmp_path: Path) -> None:
    events = [event(minute) for minute in range(3)]
    (tmp_path / "a.jsonl").write_bytes(lines(*events))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(*events)))
    (tmp_path / "c.json").write_text(json.dumps({"Records": events}))
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "d.parquet")
    (tmp_path / "e.jsonl.zst").write_bytes(pa.compress(lines(*events), "zstd", asbytes=True))
    for name in ("a.jsonl", "b.jsonl.gz", "c.json", "d.parquet", "e.jsonl.zst"):
        assert run(tmp_path / name, into=tmp_path / f"out-{name}", rules=rules).summary["alerts"] == 1, name


def test_what_cannot_be_read_is_kept_counted_and_does_not_stop_the_run(rules: Path, tmp_path: Path) -> None:
    bad_time = {**event(1), "p_event_time": "yesterday"}
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(event(0), b"no json", b"[1,2]", b"x" * 1_000_001, bad_time, event(1), b"", event(2)))
    done = run(log, "--job", "j", into=tmp_path, rules=rules)

    assert done.summary["events"] == 3
    assert done.summary["alerts"] == 1
    assert done.summary["dead_letters"] == 4
    letters = [json.loads(line) for line in Path(done.summary["dead_letters_file"]).read_text().splitlines()]
    assert Path(done.summary["dead_letters_file"]).name == "dead-letters.jsonl"
    assert [letter["source"] for letter in letters] == [str(log)] * 4
    assert [word in letter["reason"] for word, letter in zip(
        ("not JSON", "an array", "over the limit", "yesterday"), letters, strict=True
    )] == [True] * 4  # fmt: skip
    assert letters[2]["length_bytes"] == 1_000_001


def test_the_size_limit_is_a_setting(rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_MAX_EVENT_BYTES", "50")
    (tmp_path / "log.jsonl").write_bytes(lines(event(0)))

    assert run(tmp_path / "log.jsonl", into=tmp_path, rules=rules).summary["dead_letters"] == 1


def test_a_rule_that_raises_is_an_error_record_with_its_place(rules: Path, tmp_path: Path) -> None:
    (rules / "denied.py").write_text("def rule(event):\n    return 1 / event.get('zero') > 0\n")
    (tmp_path / "log.jsonl").write_bytes(lines(event(0, zero=0)))
    done = run(tmp_path / "log.jsonl", into=tmp_path, rules=rules)
    (error,) = map(json.loads, (tmp_path / "errors.jsonl").read_text().splitlines())

    assert done.summary["errors"] == 1
    assert list(error) == ["rule_id", "event_id", "function", "error", "message", "location", "position"]
    assert (error["error"], error["location"]) == ("ZeroDivisionError", "denied.py:2")


@pytest.mark.parametrize("runtime", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_standard_input_is_evaluated_while_it_comes(runtime: str, rules: Path, tmp_path: Path) -> None:
    command = [*COUNTERSIGN, "run", "-", "--rules", "rules", "--runtime", runtime, "--alerts", "-"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for minute in range(3):
            process.stdin.write(lines(event(minute)))
            process.stdin.flush()
        (ready, _, _) = select.select([process.stdout], [], [], 60)  # the pipe is still open
        alert = json.loads(process.stdout.readline()) if ready else {"title": "nothing yet"}
        process.stdin.close()

        assert alert["title"] == "eve was denied 3 times"
        assert process.wait(60) == 0


def test_standard_input_without_a_last_newline_is_read_to_its_end(rules: Path, tmp_path: Path) -> None:
    done = countersign(
        "run", "-", "--rules", "rules", "--runtime", "local", "--json", "--quiet", cwd=tmp_path,
        stdin=lines(*map(event, range(3))).rstrip(),
    )  # fmt: skip

    assert (done.code, done.summary["events"], done.summary["alerts"]) == (0, 3, 1)


def test_nothing_on_standard_input_is_no_error(rules: Path, tmp_path: Path) -> None:
    done = countersign(
        "run", "-", "--rules", "rules", "--runtime", "local", "--json", "--quiet", cwd=tmp_path, stdin=b""
    )

    assert (done.code, done.summary["events"]) == (0, 0)


# --- exit codes --------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, *arguments: object) -> tuple[int, str]:
    done = countersign(*arguments, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.code, done.stderr


def test_a_missing_input_is_exit_3_before_anything_starts(rules: Path, tmp_path: Path) -> None:
    code, stderr = refused(tmp_path, "run", "gone.jsonl", "also*.gz", "--rules", "rules")

    assert code == 3
    assert "gone.jsonl: no such file" in stderr
    assert "also*.gz: nothing matches" in stderr
    assert not (tmp_path / ".countersign").exists()


def test_a_broken_pack_is_exit_1_with_every_problem_and_its_place(rules: Path, tmp_path: Path) -> None:
    (rules / "denied.py").write_text("def rule(event)\n    pass\n")
    (rules / "other.yml").write_text("AnalysisType: rule\nRuleID: Other\nSeverity: Loud\n")
    code, stderr = refused(tmp_path, "run", "rules", "--rules", "rules")

    assert code == 1
    assert "rules/denied.py:1: " in stderr
    assert "rules/other.yml:3: " in stderr


def test_a_directory_of_rules_that_is_not_there_is_exit_2(rules: Path, tmp_path: Path) -> None:
    assert refused(tmp_path, "run", "rules", "--rules", "rulez")[0] == 2
    assert refused(tmp_path, "test", "rulez")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--runtime", "spark"],
        ["--shards", "0"],
        ["--job", "../../etc"],
        ["--no-such-option"],
        ["--epoch-events", "0"],
        ["--log-type", ""],
        ["--job", ""],
        ["--runtime", "local", "--address", "127.0.0.1:1"],
        ["--checkpoint-interval", "inf"],
    ],
    ids=" ".join,
)
def test_usage_is_exit_2(arguments: list[str], rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(event(0)))

    assert refused(tmp_path, "run", "log.jsonl", "--rules", "rules", *arguments)[0] == 2


@pytest.mark.parametrize("other", ["out", "./out", "link", "hard"])
def test_two_outputs_in_one_place_are_exit_2_and_nothing_is_written(other: str, rules: Path, tmp_path: Path) -> None:
    """Found by attack: each writer kept its own place, and hundreds of matches were overwritten without a word."""
    (tmp_path / "log.jsonl").write_bytes(lines(*map(event, range(3))))
    (tmp_path / "out").touch()
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "hard").hardlink_to(tmp_path / "out")
    code, stderr = refused(
        tmp_path, "run", "log.jsonl", "--rules", "rules", "--runtime", "local", "--alerts", "out", "--matches", other
    )

    assert code == 2
    assert "give each output a place of its own" in stderr
    assert (tmp_path / "out").read_bytes() == b""


def test_two_outputs_on_one_redis_stream_are_exit_2(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(event(0)))
    one, same = "redis://127.0.0.1:6379/0?stream=s", "redis://127.0.0.1?stream=s"

    assert refused(tmp_path, "run", "log.jsonl", "--rules", "rules", "--alerts", one, "--matches", same)[0] == 2


def test_a_setting_that_is_no_number_is_exit_2(rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_ALERT_LIMIT", "many")
    (tmp_path / "log.jsonl").write_bytes(lines(event(0)))
    code, stderr = refused(tmp_path, "run", "log.jsonl", "--rules", "rules", "--runtime", "local")

    assert code == 2
    assert "COUNTERSIGN_ALERT_LIMIT='many'" in stderr


def test_a_store_that_is_not_there_is_exit_4_and_hides_the_password(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(event(0)))
    code, stderr = refused(
        tmp_path, "run", "log.jsonl", "--rules", "rules", "--store", "redis://me:secret@127.0.0.1:1/0"
    )

    assert code == 4
    assert "127.0.0.1:1" in stderr
    assert "secret" not in stderr


@pytest.mark.ray
def test_a_cluster_that_is_not_there_is_exit_4(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(event(0)))
    code, stderr = refused(tmp_path, "run", "log.jsonl", "--rules", "rules", "--address", "127.0.0.1:1")

    assert code == 4
    assert "127.0.0.1:1" in stderr


def test_an_output_that_cannot_be_written_is_exit_4(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(event(0)))
    code, stderr = refused(
        tmp_path, "run", "log.jsonl", "--rules", "rules", "--runtime", "local", "--matches", "no/such/dir/m.jsonl"
    )

    assert code == 4
    assert "no/such/dir" in stderr


@pytest.mark.parametrize("command", ["run log.jsonl --runtime local --rules rules", "check rules", "run --help"])
def test_standard_output_that_takes_nothing_is_exit_4_in_one_line(command: str, rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(*map(event, range(3))))
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COUNTERSIGN, *command.split()], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)

    assert done.returncode == 4
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("countersign: standard output: No space left on device: keep its reader running, or ")


# --- state, test, help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["directory", "redis"])
def test_state_shows_what_the_last_checkpoint_holds(
    kind: str, rules: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = tmp_path / "store" if kind == "directory" else request.getfixturevalue("redis_url")
    (tmp_path / "log.jsonl").write_bytes(lines(event(0), event(1), event(2, "bob")))
    done = countersign(
        "run", "log.jsonl", "--rules", "rules", "--runtime", "local", "--job", "j", "--store", store, cwd=tmp_path
    )
    assert done.code == 0, done.stderr
    eve = countersign("state", "get", "Denied:eve", "--job", "j", "--store", store)
    both = countersign("state", "ls", "--prefix", "Denied:", "--job", "j", "--store", store)
    one = countersign("state", "ls", "--limit", 1, "--job", "j", "--store", store)

    assert json.loads(eve.stdout) == {"key": "Denied:eve", "counter": 2, "expires_at": "2026-03-02T10:01:00Z"}
    assert [json.loads(line)["key"] for line in both.stdout.splitlines()] == ["Denied:bob", "Denied:eve"]
    assert "1 more" in one.stderr
    assert countersign("state", "get", "Denied:mallory", "--job", "j", "--store", store).code == 1
    assert countersign("state", "get", "Denied:eve", "--job", "other", "--store", store).code == 4


def test_the_shipped_pack_passes_its_tests(tmp_path: Path) -> None:
    done = countersign("test", PACKS)

    assert done.code == 0, done.stdout
    assert "[PASS]" in done.stdout
    assert "Failed: 0" in done.stdout
    assert "\033" not in done.stdout


def test_a_failing_test_is_exit_1_and_named(rules: Path, tmp_path: Path) -> None:
    (rules / "denied.yml").write_text(
        YAML + "Tests:\n  - Name: alerts at once\n    ExpectedResult: true\n"
        '    Log: {user: eve, p_event_time: "2026-03-02 09:00:00"}\n'
    )
    done = countersign("test", rules)

    assert done.code == 1
    assert "[FAIL] alerts at once" in done.stdout
    assert "rule() gave false, true expected" in done.stdout


def test_a_filter_that_matches_nothing_is_exit_2(tmp_path: Path) -> None:
    done = countersign("test", PACKS, "--filter", "RuleID=No.Such.Rule")

    assert (done.code, "no detection matches" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", [[], ["run"], ["state"], ["state", "get"], ["state", "ls"], ["test"]], ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    done = countersign(*command, "--help")

    assert done.code == 0
    assert "Example:" in done.stdout or command in ([], ["state"])


def test_help_does_not_import_what_it_does_not_need() -> None:
    code = "import sys; sys.argv = ['x', '--help']\nfrom cluster.cli import app\ntry: app()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('ray', 'redis', 'pyarrow', 'yaml') if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stderr.strip() == "[]"


@pytest.mark.ray
def test_a_directory_with_its_own_package_rules_is_a_fine_place_to_start_from(rules: Path, tmp_path: Path) -> None:
    (rules / "__init__.py").write_text("raise RuntimeError('the wrong rules')")
    (rules / "__init__.yml").write_text("NotARule: true\n")
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "__init__.py").write_text("raise RuntimeError('the wrong cluster')")
    (tmp_path / "log.jsonl").write_bytes(lines(*map(event, range(3))))
    script = tmp_path / "start"
    script.write_text(f"#!{sys.executable}\nfrom cluster.__main__ import main\nmain()\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*COUNTERSIGN, "run", "log.jsonl", "--rules", "rules", "--alerts", "alerts.jsonl", "--json", "--quiet"],
        cwd=tmp_path, capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["alerts"] == 1


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ("local", "print"),
        ("local", "sys.stdout.write"),
        ("local", "sys.stderr.write"),
        ("local", "(lambda text: os.write(1, text.encode()))"),
        pytest.param("ray", "sys.stderr.write", marks=pytest.mark.ray),
    ],
)
def test_rules_run_in_one_environment_and_unheard_wherever_they_run(
    runtime: str, says: str, rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rules / "denied.py").write_text(
        "import os, sys\n"
        f"def rule(event):\n    {says}('loud')\n    return True\n"
        "def title(event):\n    return ' '.join(os.environ[n] for n in ('PYTHONHASHSEED', 'TZ', 'LC_ALL'))\n"
    )
    (tmp_path / "log.jsonl").write_bytes(lines(event(0)))
    for name, value in {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    done = run(tmp_path / "log.jsonl", into=tmp_path, runtime=runtime, rules=rules)

    assert json.loads((tmp_path / "alerts.jsonl").read_text())["title"] == "0 UTC C"
    assert "loud" not in done.stdout + done.stderr


@pytest.mark.parametrize("runtime", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_an_input_that_is_damaged_in_the_middle_is_exit_3_with_its_name(
    runtime: str, rules: Path, tmp_path: Path
) -> None:
    data = bytearray(gzip.compress(lines(*(event(0, user=os.urandom(20).hex()) for _ in range(20_000)))))
    data[len(data) // 2 : len(data) // 2 + 100] = b"\xff" * 100
    (tmp_path / "log.jsonl.gz").write_bytes(data)
    code, stderr = refused(tmp_path, "run", "log.jsonl.gz", "--rules", "rules", "--runtime", runtime)

    assert code == 3
    assert "log.jsonl.gz: the gzip data is damaged" in stderr


@pytest.mark.parametrize("runtime", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_full_disk_ends_the_run_with_whole_records_and_the_job_goes_on_when_there_is_room(
    runtime: str, rules: Path, tmp_path: Path
) -> None:
    (rules / "denied.py").write_text("def rule(event):\n    return True\n")
    (tmp_path / "log.jsonl").write_bytes(lines(*(event(n % 60) for n in range(3000))))
    common = ["run", "log.jsonl", "--rules", "rules", "--runtime", runtime, "--job", "j", "--matches", "m.jsonl", "--json"]
    full = subprocess.run(
        ["bash", "-c", 'ulimit -f 300; exec "$@"', "bash", *COUNTERSIGN, *common, "--quiet"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert full.returncode == 4, full.stderr
    assert "Traceback" not in full.stderr
    for line in (tmp_path / "m.jsonl").read_bytes().splitlines():
        json.loads(line)

    again = countersign(*common, "--quiet", cwd=tmp_path)
    assert again.code == 0, again.stderr
    positions = [json.loads(line)["position"][1] for line in (tmp_path / "m.jsonl").read_bytes().splitlines()]
    assert len(positions) == len(set(positions)) == 3000


def test_what_no_rule_will_see_is_said_before_the_run(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(*map(event, range(3))))
    (tmp_path / "odd.jsonl").write_bytes(b'{"a": 1}\n')
    common = ["--rules", "rules", "--runtime", "local"]
    wrong = countersign("run", "log.jsonl", *common, "--log-type", "Apq", cwd=tmp_path)
    odd = countersign("run", "odd.jsonl", *common, cwd=tmp_path)
    right = countersign("run", "log.jsonl", *common, cwd=tmp_path)

    assert "log.jsonl: no rule is for Apq" in wrong.stderr
    assert "odd.jsonl: of no known log type: give --log-type" in odd.stderr
    assert "log.jsonl:" not in right.stderr


def test_what_is_left_out_of_a_pack_is_not_told_when_quiet(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(*map(event, range(3))))
    (rules / "query.yml").write_text("AnalysisType: saved_query\nQueryName: q\nQuery: select 1\n")
    common = ["run", "log.jsonl", "--rules", "rules", "--runtime", "local"]

    assert "saved quer" in countersign(*common, cwd=tmp_path).stderr
    assert countersign(*common, "--quiet", cwd=tmp_path).stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_standard_input_is_silent_ends_with_a_checkpoint(
    number: signal.Signals, rules: Path, tmp_path: Path
) -> None:
    arguments = ["run", "-", "--rules", "rules", "--runtime", "local", "--job", "j", "--alerts", "alerts.jsonl"]
    with subprocess.Popen(
        [*COUNTERSIGN, *arguments], cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(lines(*map(event, range(3))))
        process.stdin.flush()
        until_s = time.monotonic() + 60
        while not ((tmp_path / "alerts.jsonl").exists() and (tmp_path / "alerts.jsonl").stat().st_size):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        process.send_signal(number)

        assert process.wait(timeout=60) == 130, process.stderr.read().decode()  # with standard input still open

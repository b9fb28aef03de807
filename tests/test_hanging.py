"""A rule that does not return costs the event it hangs on, for this rule; processes that freeze cost nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commands import COUNTERSIGN, ROOT, Done, actors, run, write_rule

RULES = {
    "Count": ("", 'return increment_counter("count:" + user) % 10 == 0'),
    "Expression": ("n == 300", 're.match(r"(a+)+$", "a" * 60 + "b")', 'return increment_counter("e:" + user) % 10 == 0'),
    "Pair": (
        "n == 500", "while True:\n            pass",
        'return (pair + increment_counter("host:" + event["host"])) % 10 == 0',
    ),
    "Often": ("n % 100 == 99", "time.sleep(3600)", "return n % 7 == 0"),
}  # fmt: skip
"""RuleID -> when it hangs, how, and what it does otherwise."""

HANGS = {("Expression", 300), ("Pair", 500), ("Often", 99), ("Often", 199), ("Often", 299)}
"""And of Often nothing after that."""


def write_rules(directory: Path, *, hanging: bool) -> None:
    directory.mkdir()
    for rule_id, (when, *how, body) in RULES.items():
        pair = 'pair = increment_counter("user:" + user)\n    ' if rule_id == "Pair" else ""
        hang = f"if {when}:\n        {how[0]}\n    " if how else ""
        if how and not hanging:
            leave = f"n > 299 or {when}" if rule_id == "Often" else when
            hang = f"if {leave}:\n        return False\n    "
        first, second = (hang, pair) if not hanging and rule_id == "Pair" else (pair, hang)
        source = f'import re, time\n\ndef rule(event):\n    user, n = event["user"], event["n"]\n    {first}{second}{body}\n'
        write_rule(directory, rule_id, source)


def write_events(path: Path, count: int) -> list[int]:
    """Returns the offset of each."""
    lines = [
        json.dumps(
            {
                "p_log_type": "Own.Log",
                "p_event_time": f"2024-05-01T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z",
                "user": f"u{n % 13}",
                "host": f"h{n % 7}",
                "n": n,
            }
        )
        + "\n"
        for n in range(count)
    ]
    path.write_text("".join(lines))
    return [sum(map(len, lines[:n])) for n in range(count)]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("runtime", "shards"), [("local", 1), ("local", 3), pytest.param("ray", 2, marks=pytest.mark.ray)]
)
def test_an_event_on_which_a_rule_hangs_is_skipped_for_that_rule_and_nothing_else_changes(
    runtime: str, shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = write_events(tmp_path / "log.jsonl", 900)
    write_rules(tmp_path / "hanging", hanging=True)
    write_rules(tmp_path / "harmless", hanging=False)
    harmless = run(tmp_path / "log.jsonl", into=tmp_path / "a", rules=tmp_path / "harmless")
    monkeypatch.setenv("COUNTERSIGN_EVALUATION_TIMEOUT_S", "1")
    hanging = run(
        tmp_path / "log.jsonl", into=tmp_path / "b", rules=tmp_path / "hanging", runtime=runtime, shards=shards
    )

    for output in ("matches.jsonl", "alerts.jsonl"):
        assert (tmp_path / "a" / output).read_bytes() == (tmp_path / "b" / output).read_bytes(), output
    errors = records(tmp_path / "b" / "errors.jsonl")
    assert {(each["rule_id"], offsets.index(each["position"][1])) for each in errors} == HANGS
    assert {(each["function"], each["error"]) for each in errors} == {("rule", "TimeoutError")}
    assert all("did not return within 1 s" in each["message"] for each in errors)
    assert [each["position"] for each in errors if "the rule is off" in each["message"]] == [[0, offsets[299]]]
    assert hanging.summary["rules_off"] == {"Often": [0, offsets[299]]}
    assert hanging.stderr.count("Often is off after 3 events") == 2, "when it happens, and at the end"
    assert hanging.summary["matches"] == harmless.summary["matches"] > 100


def test_what_hangs_is_known_when_the_job_goes_on_and_forgotten_when_its_rules_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERSIGN_EVALUATION_TIMEOUT_S", "1")
    write_events(tmp_path / "1.jsonl", 400)
    write_rules(tmp_path / "rules", hanging=True)

    def go(*inputs: str) -> Done:
        return run(*(tmp_path / name for name in inputs), "--job", "j", into=tmp_path / "out", rules=tmp_path / "rules")

    assert "Often" in go("1.jsonl").summary["rules_off"]
    write_events(tmp_path / "2.jsonl", 200)
    again = go("1.jsonl", "2.jsonl")
    assert "Often" in again.summary["rules_off"]
    assert "did not return within" not in again.stderr
    source = (tmp_path / "rules" / "Often.py").read_text().replace("time.sleep(3600)", "pass")
    (tmp_path / "rules" / "Often.py").write_text(source)
    write_events(tmp_path / "3.jsonl", 200)
    mended = go("1.jsonl", "2.jsonl", "3.jsonl")

    assert mended.summary["rules_off"] == {}
    assert mended.summary["events"] == 200


ASKING = {
    "Again": ('n = increment_counter("again:" + user)', "return n % 10 == 0"),
    "Both": (
        'n = increment_counter("both:" + event["host"]) + increment_counter("both:" + user)', "return n % 10 == 0",
    ),
    "Waiting": ('n = increment_counter("waiting:" + user)', "return n % 10 == 0"),
    "WaitingForBoth": (
        'n = increment_counter("w:" + event["host"]) + increment_counter("w:" + user)', "return n % 10 == 0",
    ),
}  # fmt: skip
"""RuleID -> what it asks for, and what it makes of it."""


def write_asking_rules(directory: Path, *, patient: bool) -> None:
    """With `patient` ones those that ask until they are given, and that wait for what they asked for."""
    directory.mkdir()
    for rule_id, (ask, body) in ASKING.items():
        if patient and rule_id.startswith("Waiting"):
            ask = f"n = None\n    try:\n        {ask}\n    except:\n        pass\n    while n is None:\n        pass"
        elif patient:
            ask = f"while True:\n        try:\n            {ask}\n            break\n        except:\n            pass"
        write_rule(directory, rule_id, f'def rule(event):\n    user = event["user"]\n    {ask}\n    {body}\n')


@pytest.mark.parametrize(
    ("runtime", "shards"), [("local", 1), ("local", 3), pytest.param("ray", 2, marks=pytest.mark.ray)]
)
def test_rules_that_would_wait_for_ever_where_a_helper_cannot_answer_yet_lose_nothing(
    runtime: str, shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(tmp_path / "log.jsonl", 900)
    write_asking_rules(tmp_path / "plain", patient=False)
    write_asking_rules(tmp_path / "patient", patient=True)
    plain = run(tmp_path / "log.jsonl", into=tmp_path / "a", rules=tmp_path / "plain")
    monkeypatch.setenv("COUNTERSIGN_EVALUATION_TIMEOUT_S", "1")
    patient = run(
        tmp_path / "log.jsonl", into=tmp_path / "b", rules=tmp_path / "patient", runtime=runtime, shards=shards
    )

    for output in ("matches.jsonl", "alerts.jsonl", "errors.jsonl"):
        assert (tmp_path / "a" / output).read_bytes() == (tmp_path / "b" / output).read_bytes(), output
    assert patient.summary["matches"] == plain.summary["matches"] > 100
    assert patient.summary["rules_off"] == {}
    assert patient.summary["restarts"] == 2, "once for each of the two that wait without asking"
    assert "Waiting did not return" in patient.stderr
    assert "Again did not return" not in patient.stderr


@pytest.mark.ray
@pytest.mark.parametrize("actor", ["ShardActor", "CoordinatorActor"])
def test_a_frozen_process_is_noticed_and_the_run_goes_on_by_itself(actor: str, tmp_path: Path) -> None:
    write_events(tmp_path / "log.jsonl", 60_000)
    write_rules(tmp_path / "rules", hanging=False)
    run(tmp_path / "log.jsonl", into=tmp_path / "whole", rules=tmp_path / "rules")
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [
            *COUNTERSIGN, "run", str(tmp_path / "log.jsonl"), "--rules", str(tmp_path / "rules"), "--shards", "2",
            "--store", str(out / "store"), "--alerts", str(out / "alerts.jsonl"), "--matches", str(out / "matches.jsonl"),
            "--epoch-events", "1000", "--checkpoint-interval", "0.2", "--json", "--quiet",
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until_s = time.monotonic() + 60
    while not (out / "matches.jsonl").exists() or not (out / "matches.jsonl").stat().st_size:
        assert time.monotonic() < until_s
        time.sleep(0.02)
    frozen = actors(process, actor)[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    frozen.wait(timeout=20)  # psutil: until it is gone
    noticed_s = time.monotonic() - stopped_s
    stdout, stderr = process.communicate(timeout=120)

    assert process.returncode == 0, stderr.decode()
    assert b"was ended, since nothing was heard of it" in stderr
    assert noticed_s < 6, "3 s on a machine that has nothing else to do"
    assert json.loads(stdout.splitlines()[-1])["restarts"] == 1
    for output in ("matches.jsonl", "alerts.jsonl"):
        assert (out / output).read_bytes() == (tmp_path / "whole" / output).read_bytes(), output


@pytest.mark.parametrize("runtime", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_what_a_process_evaluated_when_it_ended_is_told(runtime: str, tmp_path: Path) -> None:
    """Found by a trial: a rule that crashed its process ended the run, and nobody said which."""
    (tmp_path / "rules").mkdir()
    write_rule(tmp_path / "rules", "Other", "def rule(event):\n    return increment_counter('o') > 9")
    crash = "import os\n\ndef rule(event):\n    return event['n'] == 7 and os.kill(os.getpid(), 9)"
    write_rule(tmp_path / "rules", "Crash", crash)
    offsets = write_events(tmp_path / "log.jsonl", 20)
    done = run(tmp_path / "log.jsonl", into=tmp_path, runtime=runtime, rules=tmp_path / "rules", code=4)

    notes = [line for line in done.stderr.splitlines() if "going on from the last checkpoint" in line]
    assert len(notes) == 10
    assert all(f" while Crash ran on the event at [0, {offsets[7]}]: " in note for note in notes)
    assert "see what ends it" in done.stderr

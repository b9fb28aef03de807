"""The command line: one function per command, and the exit codes.

0    done
1    tests failed, or a pack is invalid
2    usage
3    an input is missing or unreadable
4    the store or the cluster is unreachable, or another run took the job over
130  interrupted, after a clean checkpoint
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.wording import counted

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Stateful security detections in Panther's rule format, exact and sharded.",
    epilog="Exit codes: 0 done, 1 tests failed or a pack is invalid, 2 usage, 3 input missing or unreadable, "
    "4 store or cluster unreachable or job taken over, 130 interrupted after a checkpoint.",
)
state_app = typer.Typer(no_args_is_help=True, help="Look at a job's keys.")
app.add_typer(state_app, name="state")


def _say(text: str) -> None:
    print(f"countersign: {text}", file=sys.stderr)


def _fail(exit_code: int, message: str) -> typer.Exit:
    print(f"countersign: {message}", file=sys.stderr)
    return typer.Exit(exit_code)


@app.command(
    epilog="Example:  countersign run logs/ --rules rules/packs --job march --store redis://localhost:6379/0 "
    "--alerts alerts.jsonl"
)
def run(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, directories, globs, or - for stdin.")],
    rules: Annotated[list[Path], typer.Option(help="A directory of rules (.py + .yml); may be given several times.")],
    log_type: Annotated[
        str | None, typer.Option(help="The log type of the inputs; recognised by content if absent.")
    ] = None,
    shards: Annotated[int, typer.Option(min=1, max=1024, help="How many shards hold the state.")] = 2,
    runtime: Annotated[str, typer.Option(help="ray, or local: the same machines in one process.")] = "ray",
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster to join: auto, or host:port. Else Ray starts here.")
    ] = None,
    store: Annotated[
        str, typer.Option(help="Where checkpoints go: a directory or redis://host:port/db.")
    ] = ".countersign",
    job: Annotated[str | None, typer.Option(help="A name, under which the run can be continued.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over: forget the job's checkpoints and outputs.")
    ] = False,
    alerts: Annotated[str | None, typer.Option(help="Where alerts go: a file, - or redis://...?stream=NAME.")] = None,
    matches: Annotated[str | None, typer.Option(help="Where matches go; else they are counted only.")] = None,
    errors: Annotated[str | None, typer.Option(help="Where rule errors go; else they are counted only.")] = None,
    epoch_events: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000_000, help="Events per epoch that have to be parsed, about; else 16,384 for each shard."
        ),
    ] = None,
    checkpoint_interval: Annotated[float, typer.Option(min=0.05, help="Seconds between checkpoints.")] = 5.0,
    no_prefilter: Annotated[
        bool,
        typer.Option(
            "--no-prefilter", help="Parse every line, also those that no rule can match: dead letters are complete."
        ),
    ] = False,
    no_index: Annotated[
        bool, typer.Option("--no-index", help="Probe every rule on every event of its log type: same results, slower.")
    ] = False,
    filter: Annotated[
        list[str] | None,
        typer.Option("--filter", help="KEY=V1,V2 or KEY!=V: only rules that say so, PackID=... what a pack lists."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No live display and no closing words.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one summary object at the end.")] = False,
) -> None:
    """Evaluate rules over logs."""
    import orjson

    from cluster import config
    from cluster import run as running
    from cluster.display import Display, summary_text

    if runtime not in ("ray", "local"):
        raise typer.BadParameter(f"{runtime!r} is no runtime: give ray or local", param_hint="--runtime")
    if log_type == "":
        raise typer.BadParameter("it is empty: name a log type, or leave it away", param_hint="--log-type")
    if job == "":
        raise typer.BadParameter("it is empty: name the job, or leave it away", param_hint="--job")
    if address is not None and runtime == "local":
        raise typer.BadParameter("the local runtime has none: leave it away, or give --runtime ray", param_hint="--address")
    if not math.isfinite(checkpoint_interval):
        raise typer.BadParameter("give a number of seconds", param_hint="--checkpoint-interval")
    outputs = {
        kind: uri for kind, uri in (("alerts", alerts), ("matches", matches), ("errors", errors)) if uri is not None
    }
    options = running.Options(
        inputs=inputs,
        rules=rules,
        log_type=log_type,
        shards=shards,
        store=store,
        job=job,
        fresh=fresh,
        outputs=outputs,
        epoch_events=epoch_events,
        checkpoint_interval_s=checkpoint_interval,
        use_index=not no_index,
        use_prefilter=not no_prefilter,
        filters=filter or [],
    )
    human = None
    if alerts is None and not (json and quiet):
        human = sys.stderr if json else sys.stdout
    display = Display(outputs, live=sys.stderr.isatty() and not quiet, human_alerts=human, quiet=quiet)
    with _failures():
        summary = running.run(options, config.from_environment(os.environ), _runtime_starter(runtime, address), display)
    for note in summary.notes:
        _say(note)
    if json:
        print(orjson.dumps(summary.record).decode())
    elif not quiet:
        print(summary_text(summary.record), file=sys.stderr)
    raise typer.Exit(summary.exit_code)


def _runtime_starter(runtime: str, address: str | None) -> Any:
    if runtime == "local":
        from cluster.runtime.local import LocalRuntime

        return LocalRuntime

    def start(spec: Any) -> Any:
        from cluster.runtime.ray import RayRuntime, start_ray

        start_ray(address)
        return RayRuntime(spec)

    return start


_STORE = typer.Option(help="The job's store.")
_JOB = typer.Option(help="The job.")


@app.command(
    epilog="Example:  countersign status --job march --store redis://localhost:6379/0    "
    "Exit codes: 0 also where the job does not run; 4 no such job."
)
def status(
    job: Annotated[str, _JOB],
    store: Annotated[str, _STORE] = ".countersign",
    json: Annotated[bool, typer.Option("--json", help="Print one object instead.")] = False,
) -> None:
    """Say how a job stands: whether it runs, how far it is, what it found."""
    from cluster.asking import standing, status_text
    from cluster.stores import open_store

    with _failures():
        now = standing(open_store(store), job, _say)
    if json:
        import orjson

        print(orjson.dumps(now.record()).decode())
    else:
        print(status_text(now))


@app.command(
    epilog="Example:  countersign stop --job march    "
    "Exit codes: 0 it has stopped; 4 no such job, it does not run, or it could not save its last checkpoint."
)
def stop(job: Annotated[str, _JOB], store: Annotated[str, _STORE] = ".countersign") -> None:
    """Have a run end after one more checkpoint, as Ctrl-C there does, and wait until it has."""
    from cluster import asking
    from cluster.stores import open_store

    with _failures():
        try:
            well, text = asking.stopped_text(job, asking.stop(open_store(store), job))
        except KeyboardInterrupt:
            raise _fail(130, f"job {job}: it was asked to stop, and will: nobody waits for it any more") from None
    if not well:
        raise _fail(4, text)
    print(text)


@app.command(
    epilog="Example:  countersign rescale --shards 8 --job march    "
    "Exit codes: 0 it has so many shards; 4 no such job, it does not run, or it ended on the way."
)
def rescale(
    shards: Annotated[int, typer.Option(min=1, max=1024, help="How many shards are to hold the state.")],
    job: Annotated[str, _JOB],
    store: Annotated[str, _STORE] = ".countersign",
) -> None:
    """Have a run go to another number of shards while it goes on, and wait until it has."""
    from cluster import asking
    from cluster.stores import open_store

    def progress(note: dict[str, Any]) -> None:
        if sys.stderr.isatty():
            words = f"{note.get('shards', '?')} shards, {note.get('keys', 0):,} keys"
            print(f"\rjob {job}: {words} ", end="", file=sys.stderr, flush=True)

    with _failures():
        try:
            done = asking.rescale(open_store(store), job, shards, progress)
        except KeyboardInterrupt:
            raise _fail(130, f"job {job}: it was asked for {shards} shards: nobody waits for them any more") from None
        finally:
            if sys.stderr.isatty():
                print(file=sys.stderr)
    moved = f"; {done.keys:,} keys moved, and stood still for {done.moving_s * 1000:.0f} ms at most" if done.keys else ""
    print(f"job {job}: {counted(shards, 'shard')}, {done.seconds:.1f} s after it was asked{moved}")


@state_app.command("get", epilog="Example:  countersign state get 'denied:arn:aws:iam::1:user/eve' --job march")
def state_get(
    key: Annotated[str, typer.Argument(help="The key as a rule wrote it.")],
    job: Annotated[str, _JOB],
    store: Annotated[str, _STORE] = ".countersign",
) -> None:
    """Print what a key holds: now if the job runs, else as of its last checkpoint."""
    with _failures():
        rows, _ = _rows(store, job, key, "", 1)
    if not rows:
        raise _fail(1, f"{key!r}: job {job} has no such key, or it has expired: `countersign state ls` lists them")
    print(_row_text(rows[0]))


@state_app.command("ls", epilog="Example:  countersign state ls --prefix denied: --limit 20 --job march")
def state_ls(
    job: Annotated[str, _JOB],
    prefix: Annotated[str, typer.Option(help="Only keys that start with this.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    store: Annotated[str, _STORE] = ".countersign",
) -> None:
    """List keys in order, all as of one moment: now if the job runs, else the last checkpoint."""
    with _failures():
        rows, more = _rows(store, job, None, prefix, limit)
    for row in rows:
        print(_row_text(row))
    if more:
        _say(f"{more} more: raise --limit or narrow --prefix")


@state_app.command(
    "rm",
    epilog="Example:  countersign stop --job march && countersign state rm 'denied:arn:aws:iam::1:user/eve' --job march",
)
def state_rm(
    key: Annotated[str, typer.Argument(help="The key as a rule wrote it.")],
    job: Annotated[str, _JOB],
    store: Annotated[str, _STORE] = ".countersign",
) -> None:
    """Remove a key from a job that was stopped. What the job finds from then on is no longer what its input alone says."""
    from cluster.removing import remove_key
    from cluster.stores import open_store

    with _failures():
        if not remove_key(open_store(store), job, key, _say):
            raise _fail(1, f"{key!r}: job {job} has no such key, or it has expired: `countersign state ls` lists them")
    _say(f"{key!r} is removed: what job {job} finds from here on is no longer what its input alone says")


def _rows(store_url: str, job: str, key: str | None, prefix: str, limit: int) -> tuple[list[Any], int]:
    """(rows, how many there are beside them), live if the job runs. On standard error it says as of when they are."""
    from cluster import asking
    from cluster.stores import open_store

    store = open_store(store_url)
    live = asking.keys(store, job, key, prefix, limit)
    if live is not None:
        _say(f"job {job} runs: as of its epoch {live.epoch}")
        return live.rows, live.more
    from cluster.run import state_rows

    manifest, rows = state_rows(store, job, _say)
    _say(f"job {job} does not run: as of its last checkpoint, epoch {manifest['epoch']}")
    chosen = [row for row in rows if row.key.startswith(prefix) and key in (None, row.key)]
    return chosen[:limit], max(0, len(chosen) - limit)


def _row_text(row: Any) -> str:
    import orjson

    from cluster.core.records import time_text

    record: dict[str, Any] = {"key": row.key}
    if row.counter is not None:
        record["counter"] = row.counter
    if row.members is not None:
        record["string_set"] = row.members
    if row.dictionary is not None:
        record["dictionary"] = orjson.Fragment(row.dictionary)
    record["expires_at"] = time_text(row.expiry_s)
    return orjson.dumps(record).decode()


@app.command(epilog="Example:  countersign test rules/packs --filter RuleID=Okta.MFA.Fatigue")
def test(
    directory: Annotated[Path | None, typer.Argument(metavar="DIR", help="A directory of rules.")] = None,
    path: Annotated[Path | None, typer.Option(help="The same as DIR.")] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="KEY=V1,V2 or KEY!=V: only what has it in its YAML, PackID=... what a pack lists."
        ),
    ] = None,
    test_names: Annotated[list[str] | None, typer.Option(help="Only tests of this name.")] = None,
    minimum_tests: Annotated[
        int, typer.Option(min=0, help="Fail what has fewer tests; from 2 on also what lacks a true or a false one.")
    ] = 0,
    show_failures_only: Annotated[bool, typer.Option("--show-failures-only", help="Print failures only.")] = False,
    format: Annotated[str, typer.Option(help="text, json or junit.")] = "text",
    skip_disabled_tests: Annotated[bool, typer.Option("--skip-disabled-tests", help="Skip what is disabled.")] = False,
    ignore_files: Annotated[list[str] | None, typer.Option(help="A file to leave out.")] = None,
    ignore_extra_keys: Annotated[
        bool, typer.Option("--ignore-extra-keys", help="Keys that the format does not know are no error.")
    ] = False,
    available_destination: Annotated[
        list[str] | None, typer.Option(help="A name that destinations() may return; without any all may be.")
    ] = None,
    sort_test_results: Annotated[bool, typer.Option("--sort-test-results", help="What fails comes last.")] = False,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes to test in; 0: as many as are worth it.")] = 0,
    no_mocks: Annotated[
        bool, typer.Option("--no-mocks", help="Run tests that have mocks a second time on real state, and compare.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Test again whenever a file changes, until Ctrl-C.")] = False,
    time_limit: Annotated[float, typer.Option(min=0.01, max=3600, help="Seconds that one test may take.")] = 10.0,
) -> None:
    """Run the tests of a pack's detections against real state."""
    from cluster import testing

    if (directory is None) == (path is None):
        raise typer.BadParameter("name one directory of rules, as DIR or with --path", param_hint="DIR")
    if format not in testing.FORMATS:
        raise typer.BadParameter(f"{format!r} is no format: give {', '.join(testing.FORMATS)}", param_hint="--format")
    options = testing.Options(
        directory or path or Path(),
        filter or [],
        test_names or [],
        minimum_tests,
        show_failures_only,
        format,
        skip_disabled_tests,
        ignore_files or [],
        ignore_extra_keys,
        available_destination or [],
        sort_test_results,
        workers,
        no_mocks,
        time_limit,
    )
    with _failures():
        raise typer.Exit(testing.watch(options) if watch else testing.run_pack_tests(options))


@app.command(
    epilog="Example:  countersign check rules/packs    "
    "Exit codes: 0 no error, whether or not there are warnings; 1 an error; 2 no such directory."
)
def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory of rules, or a whole repository.")],
) -> None:
    """Say what is wrong with a pack, with path:line:column, and what is likely to go wrong."""
    from cluster.checking import check_pack

    with _failures():
        raise typer.Exit(check_pack(directory))


@app.command(
    epilog="Example:  countersign explain rules/packs AWS.CloudTrail.AccessDenied.Burst --event denied.json    "
    "Exit codes: 0 done, whether or not it matched; 1 the rule cannot be loaded; 2 no such rule or directory; "
    "3 the event cannot be read."
)
def explain(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory of rules.")],
    rule_id: Annotated[str, typer.Argument(metavar="RULE_ID", help="The RuleID of one of them.")],
    event: Annotated[
        Path | None,
        typer.Option(help="A file with an event as JSON, or several, one a line: they are evaluated in order."),
    ] = None,
) -> None:
    """Say what a rule asks of events and which keys it touches; of an event, why it matches or not and what state it leaves."""
    from cluster.explaining import explain as explain_rule

    with _failures():
        explain_rule(directory, rule_id, event)


class _failures:
    """Turns what a user can mend into one line and an exit code; anything else is a bug and keeps its traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or isinstance(error, typer.Exit):
            return
        if isinstance(error, KeyboardInterrupt):
            raise _fail(130, "interrupted before anything started") from None
        code = _exit_code(error)
        if code is not None:
            raise _fail(code, str(error)) from None


def _exit_code(error: BaseException) -> int | None:
    from cluster.asking import Refused

    if isinstance(error, Refused):  # before the imports below, which take a while
        return error.exit_code
    from cluster.config import BadSetting
    from cluster.core.errors import CorruptSnapshot, LaterFormat
    from cluster.explaining import NoSuchRule
    from cluster.run import CannotRun
    from cluster.sinks import OutputExists, SinkFailed
    from cluster.sources import InputMissing, InputUnreadable, SourceChanged
    from cluster.stores import BadName, BlobMissing, Fenced, LeaseHeld, StoreUnreachable
    from cluster.testing import NothingToTest
    from rules.errors import InvalidPack
    from rules.filters import BadFilter
    from rules.pack import MissingPack

    if isinstance(error, CannotRun):
        return error.exit_code
    table: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
        ((InvalidPack,), 1),
        ((MissingPack, BadSetting, BadFilter, NothingToTest, BadName, NoSuchRule), 2),
        ((InputMissing, InputUnreadable, SourceChanged), 3),
        ((StoreUnreachable, LeaseHeld, Fenced, BlobMissing, CorruptSnapshot, LaterFormat, SinkFailed, OutputExists), 4),
    )
    for kinds, code in table:
        if isinstance(error, kinds):
            return code
    if type(error).__name__ == "ClusterUnreachable":  # defined beside ray, which is not imported for this
        return 4
    return None

"""The benchmarks' rules as one would write them for a single file: one process, one loop, orjson and a dict or two.

Nothing here can be sharded, recovered or given another rule; that is what it is for. It prints {"events", "seconds"} and
writes one line per match, {"rule_id", "position", "dedup"}.

founding_by_words parses only lines in which a word stands that the founding rules ask for: as somebody would have it who knows
that it is parsing that takes the time, and that nobody spells such a word with escapes.

    python -m bench.baselines.bare_loop founding|founding_by_words|every_event|most_match CLOUDTRAIL.jsonl MATCHES.jsonl
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

HOUR_S = 3600
REMEMBER_S = 90 * 86_400
DENIALS_ALLOWED = 10
CALLS_COUNTED = 100
DENIALS = frozenset(("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"))
BLOCK_BYTES = 1 << 20


@dataclass(slots=True)
class Passed:
    """What was not parsed."""

    events: int = 0
    size_bytes: int = 0


def with_words(lines: Iterable[bytes], passed: Passed) -> Iterator[bytes]:
    """Those that one of the founding rules may be about."""
    events = size_bytes = 0
    for line in lines:
        if b"AccessDenied" in line or b"AssumeRole" in line or b"UnauthorizedOperation" in line:
            passed.size_bytes = size_bytes
            yield line
        else:
            events += 1
            size_bytes += len(line)
    passed.events = events


def founding_by_words(log: Path, matches: Path) -> int:
    """The two founding rules; returns the number of events."""
    return founding(log, matches, by_words=True)


def founding(log: Path, matches: Path, *, by_words: bool = False) -> int:
    """The two founding rules; returns the number of events."""
    denied: dict[str, tuple[int, float]] = {}  # arn -> (count, expiry in seconds since 1970)
    assumed: dict[str, tuple[set[str], float]] = {}  # role -> (addresses, expiry)
    events = offset = 0
    loads = orjson.loads
    passed = Passed()
    with log.open("rb", buffering=BLOCK_BYTES) as lines, matches.open("wb", buffering=BLOCK_BYTES) as out:

        def match(rule_id: str, dedup: str) -> None:
            position = 0, offset + passed.size_bytes
            out.write(orjson.dumps({"rule_id": rule_id, "position": position, "dedup": dedup}) + b"\n")

        for line in with_words(lines, passed) if by_words else lines:
            event = loads(line)
            error = event.get("errorCode")
            if error in DENIALS:
                identity = event["userIdentity"]
                arn = identity.get("arn")
                if arn and not identity.get("invokedBy"):
                    now_s = time_s(event)
                    count, expiry_s = denied.get(arn, (0, 0.0))
                    if count == 0 or expiry_s <= now_s:
                        count, expiry_s = 0, now_s + HOUR_S
                    denied[arn] = (count + 1, expiry_s)
                    if count + 1 == DENIALS_ALLOWED:
                        del denied[arn]
                        match("AWS.CloudTrail.AccessDenied.Burst", arn)
            elif error is None and event["eventName"] == "AssumeRole" and event["eventSource"] == "sts.amazonaws.com":
                role = (event["requestParameters"] or {}).get("roleArn")
                address = event.get("sourceIPAddress")
                if role and address and not address.endswith("amazonaws.com") and address != "AWS Internal":
                    now_s = time_s(event)
                    addresses, expiry_s = assumed.get(role, (set(), 0.0))
                    if expiry_s <= now_s:
                        addresses = set()
                    if addresses and address not in addresses:
                        match("AWS.CloudTrail.AssumeRole.NewIP", role)
                    addresses.add(address)
                    assumed[role] = (addresses, now_s + REMEMBER_S)
            events += 1
            offset += len(line)
    return events + passed.events


def every_event(log: Path, matches: Path) -> int:
    """Calls counted per principal and hour; returns the number of events."""
    calls: dict[str, tuple[int, float]] = {}  # arn -> (count, expiry in seconds since 1970)
    events = offset = 0
    loads = orjson.loads
    with log.open("rb", buffering=BLOCK_BYTES) as lines, matches.open("wb", buffering=BLOCK_BYTES) as out:
        for line in lines:
            event = loads(line)
            arn = event["userIdentity"]["arn"]
            now_s = time_s(event)
            count, expiry_s = calls.get(arn, (0, 0.0))
            if count == 0 or expiry_s <= now_s:
                count, expiry_s = 0, now_s + HOUR_S
            if count + 1 == CALLS_COUNTED:
                del calls[arn]
                out.write(orjson.dumps({"rule_id": "Bench.Calls", "position": (0, offset), "dedup": arn}) + b"\n")
            else:
                calls[arn] = (count + 1, expiry_s)
            events += 1
            offset += len(line)
    return events


def most_match(log: Path, matches: Path) -> int:
    """A match with its title for what is neither an error nor an AssumeRole; returns the number of events."""
    events = offset = 0
    loads, dumps = orjson.loads, orjson.dumps
    with log.open("rb", buffering=BLOCK_BYTES) as lines, matches.open("wb", buffering=BLOCK_BYTES) as out:
        for line in lines:
            event = loads(line)
            if not event.get("errorCode") and event["eventName"] != "AssumeRole":
                arn = event["userIdentity"]["arn"]
                match = {
                    "rule_id": "Bench.LetThrough",
                    "position": (0, offset),
                    "dedup": arn,
                    "title": f"[{arn}] was let through",
                    "event_time": event["eventTime"],
                }
                out.write(dumps(match) + b"\n")
            events += 1
            offset += len(line)
    return events


def time_s(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["eventTime"]).timestamp()


def main() -> None:
    loops = founding, founding_by_words, every_event, most_match
    loop = {each.__name__: each for each in loops}[sys.argv[1]]
    log, matches = map(Path, sys.argv[2:])
    start_s = time.perf_counter()
    events = loop(log, matches)
    print(orjson.dumps({"events": events, "seconds": time.perf_counter() - start_s}).decode())


if __name__ == "__main__":
    main()

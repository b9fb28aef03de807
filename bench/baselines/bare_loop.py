"""The two founding rules as one would write them for a single file: one process, one loop, orjson and two dicts.

Nothing here can be sharded, recovered or given another rule; that is what it is for. It prints {"events", "seconds"} and
writes one line per match, {"rule_id", "position", "dedup"}.

    python -m bench.baselines.bare_loop CLOUDTRAIL.jsonl MATCHES.jsonl
"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path

import orjson

HOUR_S = 3600
REMEMBER_S = 90 * 86_400
DENIALS_ALLOWED = 10
_DENIALS = frozenset(("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"))
_BLOCK_BYTES = 1 << 20


def bare_loop(log: Path, matches: Path) -> int:
    """Read `log`, write the matches; returns the number of events."""
    denied: dict[str, tuple[int, float]] = {}  # arn -> (count, expiry in seconds since 1970)
    assumed: dict[str, tuple[set[str], float]] = {}  # role -> (addresses, expiry)
    events = offset = 0
    loads = orjson.loads
    with log.open("rb", buffering=_BLOCK_BYTES) as lines, matches.open("wb", buffering=_BLOCK_BYTES) as out:

        def match(rule_id: str, dedup: str) -> None:
            out.write(orjson.dumps({"rule_id": rule_id, "position": (0, offset), "dedup": dedup}) + b"\n")

        for line in lines:
            event = loads(line)
            error = event.get("errorCode")
            if error in _DENIALS:
                identity = event["userIdentity"]
                arn = identity.get("arn")
                if arn and not identity.get("invokedBy"):
                    now_s = _time_s(event)
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
                    now_s = _time_s(event)
                    addresses, expiry_s = assumed.get(role, (set(), 0.0))
                    if expiry_s <= now_s:
                        addresses = set()
                    if addresses and address not in addresses:
                        match("AWS.CloudTrail.AssumeRole.NewIP", role)
                    addresses.add(address)
                    assumed[role] = (addresses, now_s + REMEMBER_S)
            events += 1
            offset += len(line)
    return events


def _time_s(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["eventTime"]).timestamp()


def main() -> None:
    log, matches = map(Path, sys.argv[1:])
    start_s = time.perf_counter()
    events = bare_loop(log, matches)
    print(orjson.dumps({"events": events, "seconds": time.perf_counter() - start_s}).decode())


if __name__ == "__main__":
    main()

"""The two founding rules with their state in Redis, one round trip for each call of a helper.

INCR, EXPIRE, DEL, SMEMBERS, and SADD with EXPIRE in one, against a server that is emptied first. The server's clock knows
nothing of the time that is replayed: when an hour of that has passed is remembered here, and costs Redis a DEL. Prints
{"events", "seconds"} and writes one line per match, {"rule_id", "position", "dedup"}.

    python -m bench.baselines.redis_loop redis://HOST:PORT/0 CLOUDTRAIL.jsonl MATCHES.jsonl
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import orjson
import redis

from bench.baselines.bare_loop import BLOCK_BYTES, DENIALS, DENIALS_ALLOWED, HOUR_S, REMEMBER_S, time_s


class Helpers:
    """The caching helpers that the founding rules call; times are the replay's, in seconds since 1970."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._expiries_s: dict[str, float] = {}

    def increment_counter(self, key: str, now_s: float) -> int:
        self._forget_expired(key, now_s)
        count: int = self._client.incr(key)
        return count

    def set_key_expiration(self, key: str, seconds: int, now_s: float) -> None:
        self._client.expire(key, seconds)
        self._expiries_s[key] = now_s + seconds

    def reset_counter(self, key: str) -> None:
        self._client.delete(key)

    def get_string_set(self, key: str, now_s: float) -> set[bytes]:
        self._forget_expired(key, now_s)
        members: set[bytes] = self._client.smembers(key)
        return members

    def add_to_string_set(self, key: str, member: str, seconds: int, now_s: float) -> None:
        both = self._client.pipeline(transaction=False)
        both.sadd(key, member)
        both.expire(key, seconds)
        both.execute()
        self._expiries_s[key] = now_s + seconds

    def _forget_expired(self, key: str, now_s: float) -> None:
        expiry_s = self._expiries_s.get(key)
        if expiry_s is not None and expiry_s <= now_s:
            self._client.delete(key)
            del self._expiries_s[key]


def founding(helpers: Helpers, log: Path, matches: Path) -> int:
    """Returns the number of events."""
    events = offset = 0
    loads = orjson.loads
    with log.open("rb", buffering=BLOCK_BYTES) as lines, matches.open("wb", buffering=BLOCK_BYTES) as out:

        def match(rule_id: str, dedup: str) -> None:
            out.write(orjson.dumps({"rule_id": rule_id, "position": (0, offset), "dedup": dedup}) + b"\n")

        for line in lines:
            event = loads(line)
            error = event.get("errorCode")
            if error in DENIALS:
                identity = event["userIdentity"]
                arn = identity.get("arn")
                if arn and not identity.get("invokedBy"):
                    now_s, key = time_s(event), f"denied:{arn}"
                    count = helpers.increment_counter(key, now_s)
                    if count == 1:
                        helpers.set_key_expiration(key, HOUR_S, now_s)
                    if count == DENIALS_ALLOWED:
                        helpers.reset_counter(key)
                        match("AWS.CloudTrail.AccessDenied.Burst", arn)
            elif error is None and event["eventName"] == "AssumeRole" and event["eventSource"] == "sts.amazonaws.com":
                role = (event["requestParameters"] or {}).get("roleArn")
                address = event.get("sourceIPAddress")
                if role and address and not address.endswith("amazonaws.com") and address != "AWS Internal":
                    now_s, key = time_s(event), f"assumed:{role}"
                    known = helpers.get_string_set(key, now_s)
                    helpers.add_to_string_set(key, address, REMEMBER_S, now_s)
                    if known and address.encode() not in known:
                        match("AWS.CloudTrail.AssumeRole.NewIP", role)
            events += 1
            offset += len(line)
    return events


def main() -> None:
    url, log, matches = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    with redis.Redis.from_url(url) as client:
        client.flushall()
        start_s = time.perf_counter()
        events = founding(Helpers(client), log, matches)
        print(orjson.dumps({"events": events, "seconds": time.perf_counter() - start_s}).decode())


if __name__ == "__main__":
    main()

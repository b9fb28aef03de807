"""What a simulated run works on, drawn from a seed: rules that share, chain and race for keys; events in disorder."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from cluster.core.lines import digest_of
from cluster.core.messages import Lines, Partition, Records, Slice

LOG_TYPE_FILE = {"Sim.yml": b"LogType: Sim\nTimestamp: t\nRecognise: [{n: '*'}]\n"}

START_S = 1_700_000_000
"""The first events' time; also the job's start time, which events before any time take."""

_IMPORT = "from panther_detection_helpers.caching import *\n"
_IMPORT_HANG = "from cluster.runtime.sim.hanging import never_returns\n"
_READS = {"user": 'str(event.get("user"))', "host": 'str(event.get("host"))', "n": 'event.get("n")'}
"""What bodies call the event's fields. They ask only for those that they use: n is another in each event, and what came after
the same answers is recalled (rules/recall.py)."""

_BODIES = {
    "count": 'return increment_counter("count:" + user, 1, {ttl}) % {few} == 0',
    "collect": (
        'before = get_string_set("seen:" + host)\n    add_to_string_set("seen:" + host, user, {ttl})\n'
        "    return user not in before"
    ),
    "read what count writes": 'return get_counter("count:" + user) >= {few}',
    "read what collect writes": 'return len(get_string_set("seen:" + host)) == {few}',
    "two keys": 'a = increment_counter("a:" + user)\n    return increment_counter("b:" + host) == a',
    "hot key and a fresh one": (
        'hot = increment_counter("hot")\n    put_string_set("fresh:%s" % n, [user], {ttl})\n    return hot % {few} == 0'
    ),
    "three keys": (
        'hot = increment_counter("hot", 2)\n    increment_counter("hot:" + host)\n'
        '    return get_counter("count:" + user) < hot'
    ),
    "a key out of a value": (
        'to = get_dictionary("next:" + user).get("to", "nobody")\n    put_dictionary("next:" + user, {{"to": host}})\n'
        '    return increment_counter("reached:" + to) % {few} == 1'
    ),
    "a chain of values": (
        'at = user\n    for _ in range({few} + 1):\n        at = get_dictionary("link:" + at).get("to", host)\n'
        '    put_dictionary("link:" + host, {{"to": user}})\n    put_dictionary("link:" + user, {{"to": at}})\n'
        "    return at == host"
    ),
    "keys with a tag": 'increment_counter("x{{%s}}" % user)\n    return increment_counter("y{{%s}}" % user, 1, {ttl}) == {few}',
    "several hosts": 'return sum(increment_counter("of:" + str(h)) for h in event.get("hosts") or [host]) % {few} == 0',
    "expiry at the edge": (
        'first = increment_counter("edge:" + user) == 1\n    if first:\n'
        '        set_key_expiration("edge:" + user, event.event_time_epoch() + {ttl})\n    return first'
    ),
    "take and reset": (
        'left = remove_from_string_set("seen:" + host, user)\n'
        '    if len(left) > {few}:\n        reset_string_set("seen:" + host)\n'
        '    reset_counter("count:" + user)\n    return not left'
    ),
    "an error after a write": (
        'if increment_counter("tried:" + user) % {few} == 0:\n        raise ValueError(user)\n    return n % 2 == 0'
    ),
    "an error between two writes": (
        'increment_counter("tried:" + user)\n    if n % {few} == 0:\n        return 1 / 0\n'
        '    return increment_counter("tried:" + host) > 2'
    ),
    "swallowing everything": (
        'try:\n        increment_counter("s:" + user)\n        increment_counter("s:" + host)\n    except:\n'
        "        pass\n    return True"
    ),
    "finally": 'try:\n        increment_counter("f:" + host)\n    finally:\n        return get_counter("f:" + user) % 2 == 0',
    "globals": (
        'global SEEN\n    SEEN.append(user)\n    KEPT["host"] = host\n'
        '    return len(SEEN) + increment_counter("g:" + host) > {few}'
    ),
    "random": (
        'key = "r:%d" % random.randrange({few})\n    return increment_counter(key) % {few} == 0 or random.random() < 0.2'
    ),
    "the hour": (
        "minute = time.time() // 60\n"
        '    return minute % {few} != 0 and increment_counter("h:%s:%d" % (user, minute)) % {few} == 0'
    ),
    "no state": "return n % {few} == 0",
    "a threshold": 'return evaluate_threshold("t:" + user, {few}, {ttl})',
}

_TITLES = {
    "": "",
    "user": 'def title(event):\n    return "by " + str(event.get("user"))\n',
    "a helper": 'def title(event):\n    return "nr %d" % increment_counter("title:" + str(event.get("host")))\n',
    "an error": 'def title(event):\n    return event["missing"]\n',
    "globals": 'def title(event):\n    return str(len(SEEN)) + str(KEPT.get("host"))\n',
}

_EXTRAS = {
    "": "",
    "unique": 'def unique(event):\n    return str(event.get("host"))\n',
    "dedup": 'def dedup(event):\n    return str(event.get("host"))\n',
    "context": (
        'def alert_context(event):\n    return {"count": get_counter("count:" + str(event.get("user"))), "n": event.get("n")}\n'
    ),
}


_HANGS = {
    "hanging before any state": (
        'if n % {few} == 0:\n        never_returns()\n    return increment_counter("hung:" + user) == 2'
    ),
    "hanging after state": (
        'seen = increment_counter("hung:" + user)\n    if n % {few} == 0:\n        never_returns()\n    return seen > 1'
    ),
    "hanging on state": (
        'if increment_counter("count:" + user) % {few} == 0:\n        never_returns()\n    return n % 2 == 0'
    ),
    "hanging on what others write": (
        'if len(get_string_set("seen:" + host)) % {few} == 1:\n        never_returns()\n'
        '    return bool(add_to_string_set("seen:" + host, user))'
    ),
    "hanging between two keys": (
        'a = increment_counter("a:" + user)\n    if a % {few} == 0:\n        never_returns()\n'
        '    return increment_counter("b:" + host) == a'
    ),
    "hanging on two keys": (
        'a = increment_counter("a:" + user)\n    b = increment_counter("b:" + host)\n'
        "    if (a + b) % {few} == 0:\n        never_returns()\n    return a < b"
    ),
    "hanging on a key out of a value": (
        'to = get_dictionary("next:" + user).get("to", "nobody")\n    put_dictionary("next:" + user, {{"to": host}})\n'
        '    if increment_counter("reached:" + to) % {few} == 1:\n        never_returns()\n    return to == host'
    ),
    "hanging and swallowing it": (
        'try:\n        if increment_counter("s:" + user) % {few} == 0:\n            never_returns()\n'
        '        return get_counter("s:" + host) == 2\n    except:\n        return True'
    ),
    "asking until it is given": (
        'for _ in range(1000):\n        try:\n            seen = increment_counter("count:" + user)\n            break\n'
        "        except:\n            pass\n    else:\n        never_returns()\n    return seen % {few} == 0"
    ),
    "asking until it is given both": (
        'a = increment_counter("a:" + user)\n    for _ in range(1000):\n        try:\n'
        '            b = increment_counter("b:" + host)\n            break\n'
        "        except:\n            pass\n    else:\n        never_returns()\n    return a == b"
    ),
    "waiting for what it asked for": (
        'try:\n        seen = increment_counter("count:" + user)\n    except:\n        never_returns()\n'
        "    return seen % {few} == 0"
    ),
    "waiting for a second key": (
        'b, a = None, increment_counter("a:" + user)\n    try:\n        b = increment_counter("b:" + host)\n    finally:\n'
        "        if b is None:\n            never_returns()\n    return a == b"
    ),
    "waiting for what it asked for, and hanging": (
        'a = b = None\n    try:\n        a = increment_counter("a:" + user)\n        b = increment_counter("b:" + host)\n'
        "    except:\n        pass\n    if b is None or (a + b) % {few} == 0:\n        never_returns()\n    return a == b"
    ),
    "hanging without state": "if n % 5 == {few}:\n        never_returns()\n    return True",
}
"""Bodies that call never_returns(), which stands in for a loop without end: in the one sequential run, or elsewhere only."""


@dataclass(frozen=True, slots=True)
class File:
    """One partition with what it holds."""

    partition: Partition
    records: tuple[bytes, ...]

    def length(self) -> int:
        """Of a partition that can be cut anywhere: bytes."""
        return sum(len(record) + 1 for record in self.records)

    def read(self, part: Slice) -> Records:
        """What cluster.sources reads of a slice: a line belongs to the slice in which its first byte lies."""
        lines = self.partition.format == "jsonl"
        found: list[tuple[int, bytes]] = []
        end = self.length() if lines else len(self.records)
        at, next_start = 0, end
        for number, record in enumerate(self.records):
            place = at if lines else number
            at += len(record) + 1
            if place >= part.start:
                if part.stop is not None and place >= part.stop:
                    next_start = place
                    break
                found.append((place, record))
        at_end = part.stop is None or end <= part.stop
        if lines and found:
            data = b"".join(raw + b"\n" for _, raw in found)
            return Records([], [], [], next_start, at_end, [Lines(found[0][0], data, len(data), again=True)])
        return Records([raw for _, raw in found], [place for place, _ in found], [], next_start, at_end)


    def again(self, offset: int, length_bytes: int, digest: int) -> bytes:
        """What cluster.sources reads once more of lines."""
        raw = b"".join(record + b"\n" for record in self.records)[offset : offset + length_bytes]
        assert digest_of(raw) == digest
        return raw


@dataclass(frozen=True, slots=True)
class Workload:
    """Rules and events of one run."""

    pack: dict[str, bytes]
    files: tuple[File, ...]
    lateness_s: float
    alert_limit: int
    names: tuple[str, ...]
    """What the rules are, for the report."""


def draw(rng: random.Random, hangs: random.Random) -> Workload:
    """A workload. Small pools of users, hosts and seconds, so that keys, windows and expiries meet.

    `hangs` draws the rules that do not return: a source of its own, so that the rest of a seed is what it was without them.
    """
    pack: dict[str, bytes] = dict(LOG_TYPE_FILE)
    names = [rng.choice(list(_BODIES)) for _ in range(rng.randint(1, 6))]
    for number, name in enumerate(names):
        pack |= _rule(rng, f"R{number}", name)
    for number in range(hangs.choice([0, 0, 0, 0, 0, 1, 1, 2])):
        names.append(hangs.choice(list(_HANGS)))
        pack |= _rule(hangs, f"{hangs.choice(['A', 'R1h', 'Z'])}{number}", names[-1])
    events = _events(rng)
    lateness_s = float(rng.choice([0, 5, 60, 86_400]))
    return Workload(pack, _files(rng, events), lateness_s, rng.choice([0, 1, 3]), tuple(names))


def _rule(rng: random.Random, rule_id: str, name: str) -> dict[str, bytes]:
    body = (_BODIES | _HANGS)[name].format(ttl=rng.choice([0, 1, 5, 30, 600, 100_000]), few=rng.randint(2, 4))
    titles = list(_TITLES) if name == "globals" else [title for title in _TITLES if title != "globals"]
    imports = _IMPORT + (_IMPORT_HANG if name in _HANGS else "")
    reads = "".join(f"    {name} = {read}\n" for name, read in _READS.items() if re.search(rf"\b{name}\b", body))
    source = (
        f"{imports}import random, time\nSEEN = []\nKEPT = {{}}\n\ndef rule(event):\n{reads}    {body}\n\n"
        + _TITLES[rng.choice(titles)]
        + _EXTRAS[rng.choice(list(_EXTRAS))]
    )
    spec = (
        f"AnalysisType: rule\nRuleID: {rule_id}\nFilename: {rule_id}.py\nEnabled: true\nLogTypes: [Sim]\nSeverity: High\n"
        f"Threshold: {rng.choice([1, 1, 2, 5])}\nDedupPeriodMinutes: {rng.choice([0, 1, 5, 60])}\n"
        f"CreateAlert: {rng.choice(['true', 'true', 'false'])}\n"
    )
    return {f"{rule_id}.py": source.encode(), f"{rule_id}.yml": spec.encode()}


def _events(rng: random.Random) -> list[bytes]:
    users: list[object] = [f"u{n}" for n in range(rng.choice([1, 3, 12]))]
    if len(users) > 8:
        users[3:8] = [1, True, 0.0, -0.0, "1"]  # equal to each other, some of them, and not the same
    hosts = [f"h{n}" for n in range(rng.choice([1, 3, 12]))]
    step_s = rng.choice([0.1, 1.0, 7.0, 3600.0])
    disorder_s = rng.choice([0.0, 3.0, 100.0])
    timeless = rng.choice([0.0, 0.05, 0.4])
    padding = "x" * rng.choice(
        [0, 900]
    )  # the coordinator takes records for 1,000 bytes at first: small ones make large epochs
    made: list[bytes] = []
    for n in range(rng.randint(1, 120)):
        chance = rng.random()
        if chance < 0.03 and made:
            made.append(rng.choice(made))
            continue
        if chance < 0.05:
            made.append(rng.choice([b"{", b"[1]", b'{"t": "no time", "n": 1}']))
            continue
        event = {
            "t": round(START_S + n * step_s - rng.random() * disorder_s, 1),
            "user": rng.choice(users),
            "host": rng.choice(hosts),
            "n": n,
            "padding": padding,
        }
        if rng.random() < 0.1:
            event["hosts"] = rng.sample(hosts, min(3, len(hosts)))
        if rng.random() < timeless:
            del event["t"]
        elif rng.random() < 0.02:
            event["t"] += 10_000_000.0  # type: ignore[operator]
        made.append(json.dumps(event).encode())
    return made


def _files(rng: random.Random, events: list[bytes]) -> tuple[File, ...]:
    cuts = sorted(rng.randint(0, len(events)) for _ in range(rng.choice([0, 0, 1, 3])))
    files: list[File] = []
    for index, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(events)], strict=True)):
        kind = rng.choice(["jsonl", "jsonl", "gzip", "records"])
        partition = Partition(
            index,
            f"file-{index}",
            "records" if kind == "records" else "jsonl",
            "gzip" if kind == "gzip" else None,
            0,
            0,
            f"{index}",
            None,
            "Sim",
            None,
        )
        file = File(partition, tuple(events[start:stop]))
        files.append(replace(file, partition=replace(partition, size_bytes=file.length())))
    return tuple(files)


Reader = Callable[[Slice], Records]

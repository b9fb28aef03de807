"""A pack in a plain loop: each event through each rule of its log type, with the engine's own event wrapper and state.

One process, no index, no prefilter, no shards, nothing that survives a crash. Prints {"events", "seconds"} and writes one line
per match, {"rule_id", "position", "dedup", "title", "severity"}.

    python -m bench.baselines.every_rule PACK-DIR LOG-TYPE LOG.jsonl MATCHES.jsonl
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import orjson

from bench.baselines.bare_loop import BLOCK_BYTES
from cluster.environment import in_evaluation_environment
from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.pack import Pack, load_pack, log_types_of, read_files
from rules.state import State

LATENESS_S = 86_400.0


def every_rule(pack: Pack, log_type_name: str, log: Path, matches: Path) -> int:
    """Returns the number of events."""
    log_type = log_types_of(pack)[log_type_name]
    rules = [rule for rule in pack.rules if log_type_name in rule.log_types]
    context = pack.context_of(log_type_name)
    state = State()
    evaluation = Evaluation(state)
    w_s = last_s = time_s = float("-inf")  # the watermark, as cluster/core/watermark.py has it
    events = offset = 0
    with log.open("rb", buffering=BLOCK_BYTES) as lines, matches.open("wb", buffering=BLOCK_BYTES) as out:
        for line in lines:
            data = orjson.loads(line)
            own_s = log_type.time_of(data)
            time_s = time_s if own_s is None else own_s
            position = (0, offset)
            state.clock_s = max(time_s, w_s - LATENESS_S)
            event = PantherEvent(data, log_type.derive(data, time_s, position, log.name), context)
            evaluation.begin_event(time_s, position)
            active = False
            for rule in rules:
                match = evaluate(rule, event, evaluation).match
                if match is not None:
                    record = {
                        "rule_id": rule.id,
                        "position": position,
                        "dedup": match.dedup,
                        "title": match.title,
                        "severity": match.severity,
                    }
                    out.write(orjson.dumps(record) + b"\n")
                active = active or match is not None or evaluation.key is not None
            if active:
                w_s, last_s = max(w_s, min(last_s, time_s)), time_s
            events += 1
            offset += len(line)
    return events


def main() -> None:
    in_evaluation_environment()
    directory, log_type, log, matches = sys.argv[1:]
    pack = load_pack(read_files([Path(directory)]), quiet=True)
    start_s = time.perf_counter()
    events = every_rule(pack, log_type, Path(log), Path(matches))
    print(orjson.dumps({"events": events, "seconds": time.perf_counter() - start_s}).decode())


if __name__ == "__main__":
    main()

"""countersign-sim: run simulated jobs by their seeds.

    countersign-sim 4711            one seed, with what it draws
    countersign-sim --seeds 10000   as many, from --first on; prints the seeds that fail

Exit codes: 0 all as promised, 1 a promise was broken, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from cluster.environment import in_evaluation_environment
from cluster.runtime.sim.world import World


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="countersign-sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seed", nargs="?", type=int, help="run this seed and say what it draws")
    parser.add_argument("--seeds", type=int, default=0, help="run so many")
    parser.add_argument("--first", type=int, default=0, help="the first of --seeds (0)")
    arguments = parser.parse_args()
    if (arguments.seed is None) == (arguments.seeds == 0):
        parser.error("give one SEED, or --seeds N")
    in_evaluation_environment()
    try:
        if arguments.seed is not None:
            return _one(arguments.seed)
        return _many(range(arguments.first, arguments.first + arguments.seeds))
    except KeyboardInterrupt:
        return 130


def _one(seed: int) -> int:
    world = World(seed)
    print("\n".join(world.report()))
    try:
        world.run()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        print(f"seed {seed} fails: countersign-sim {seed}")
        return 1
    print(
        f"seed {seed}: as promised, after {world.lives} lives and {world.rescales} rescales of running ones; "
        f"{world.lane} evaluations of the last in the lane; trace {world.trace[:16]}"
    )
    return 0


def _many(seeds: range) -> int:
    began_s = time.monotonic()
    failed = lives = rescales = lane = rolled_back = 0
    for number, seed in enumerate(seeds, 1):
        world = World(seed)
        try:
            world.run()
        except Exception as error:
            failed += 1
            print(f"seed {seed} fails: {type(error).__name__}: {str(error)[:300]}: countersign-sim {seed}", flush=True)
        lives += world.lives
        rescales += world.rescales
        lane += world.lane
        rolled_back += world.rolled_back
        if sys.stderr.isatty() and number % 20 == 0:
            print(f"\r{number} of {len(seeds)} seeds, {failed} failed", end="", file=sys.stderr, flush=True)
    took_s = time.monotonic() - began_s
    done = f"{lives} lives, {rescales} rescales, {rolled_back} shards rolled back, {lane} evaluations in lanes"
    print(f"{len(seeds)} seeds in {took_s:.0f} s, {done}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

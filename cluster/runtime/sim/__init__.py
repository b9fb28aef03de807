"""The simulated runtime: the machines of a job under a seeded scheduler that delays, loses, kills and pauses what it can.

One seed draws everything: rules and events (workload.py), the scheduler's choices and the faults (world.py). What comes out
is compared with the promise in a loop (oracle.py, checkers.py). A failure is reproduced by its seed: `countersign-sim SEED`.
"""

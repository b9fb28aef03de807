"""What a rule is: packs, the event rules see, the state they keep, one evaluation. Enough alone to write and test a pack.

pack.py        directories -> files -> rules, every problem at once
rule.py        a rule: its YAML, its functions, one evaluation by the contract
evaluation.py  the context of the evaluation that runs; what a probe is
helpers.py     the caching functions that rule authors call
state.py       counters, string sets, dictionaries under expiring keys
windows.py     matches -> alerts
event.py       the read-only view of an event
logtypes.py    log types as data: time, indicators, how to recognise them
clock.py       the time and the chance that rule modules see
panther.py     what a rule module can import
globals.py     module globals, put back before each evaluation
selftest.py    the tests that stand in a rule's YAML
"""

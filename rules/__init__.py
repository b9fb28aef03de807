"""What a rule is: packs, the event that rules see, the state they keep, one evaluation. Enough alone to write and test a pack.

A pack is files as bytes (pack.py) that become rules; a rule is a YAML and a Python module that is executed in a world of its
own; an evaluation is one rule on one event, with the caching helpers, the clock and the chance bound to it. Without state an
evaluation is a probe: it ends at the first helper call and tells the key. No threads, no clock, no network; only pack.py and
logtypes.py read files.

    pack.py        directories -> files -> rules, every problem at once
    schema.py      the YAML of a rule, key by key
    yaml12.py      YAML as 1.2 means it, with lines
    panther.py     what a rule module can import
    globals.py     module globals, put back before each evaluation
    rule.py        a rule: its functions by the module contract
    evaluation.py  the context of the evaluation that runs, and what ends one
    unwinding.py   ending a rule for good that goes on all the same
    helpers.py     the caching functions that rule authors call
    state.py       counters, string sets, dictionaries under expiring keys
    clock.py       the time and the chance that rule modules see
    event.py       the read-only view of an event
    windows.py     matches -> alerts
    logtypes.py    log types as data: time, indicators, how to recognise them
    jsontext.py    bytes -> JSON value
    times.py       texts and numbers -> time
    guards/        what must hold of an event for a rule to match, and the index by it
    filters.py     which detections of a pack are meant
    selftest.py    the tests that stand in a rule's YAML
    errors.py      what can be wrong with a pack
    log_types/     the definitions that ship, as data
    packs/         the rules that ship, as data
"""

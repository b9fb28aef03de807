"""The engine: evaluates stateful detection rules over a stream of events, sharded by the keys the rules touch.

The promise: matches, alerts and final state are those of one process that reads the events in order and evaluates the
rules in RuleID order on each, for any number of shards and any crash.

Machines (cluster.core; pure: a message in, effects out):

    Coordinator  cuts the source into epochs, merges what shards found in position order, completes checkpoints.
    Shard        ingests slices of each epoch, executes the evaluations on its key groups in position order, groups matches
                 into alerts.

Runtimes (cluster.runtime) carry the messages and perform the effects: `local` in one process, `ray` with one actor a shard.
They run the same machines, so they give the same results.

Words:

    event        one log record
    evaluation   one rule on one event, with its auxiliary functions
    key          the string that a rule passes to a caching helper
    key group    hash(key) mod G: the unit of state that a shard owns
    shard        owns key groups, and ingests slices of the source
    epoch        the batch of input between two cuts
    slice        a contiguous range of one partition, given to one shard to ingest
    partition    one file of the source
    position     an event's place in the total order: [partition, offset], and a sub-index where a record is several events
    guard        what must hold of fields of an event for a rule to match or to reach state
    probe        running a rule at ingest until its first state access
    match        an evaluation whose rule() returned True
    alert        a group of matches with one dedup string that reached the threshold
    W            the watermark: event time that two consecutive active events have reached (core/watermark.py)
    clock        of an evaluation: its event's time, never earlier than W less the lateness bound
    snapshot     one shard's changed state at an epoch, as bytes
    manifest     the small record that makes snapshots and source offsets a checkpoint, swapped atomically
    fencing token  a number that makes an earlier owner of a job harmless

What differs from the design we started from, and why:

    - Wall-clock functions in rule modules give the event's own time, not the clock: a probe then depends on the event
      alone, so the key it finds is exact. Expiry and alert windows use the clock.
    - Cuts are not logged. All files of a run are one ordered source, and for one ordered source results do not depend on
      cuts; the log comes with the first source of several independent partitions.
    - An evaluation that touches two key groups is a rule error until there is a serial lane, on every runtime.
"""

"""Who carries messages and performs effects.

A runtime promises a machine: messages from one sender arrive in the order they were sent; each is delivered once, or the run
ends with a failure that says so. Nothing else: no order between senders, no time bound.

    shells.py   what both runtimes do around a machine: read slices, store snapshots, write sinks, commit manifests
    local.py    one process, one queue
    ray.py      one actor a shard and one for the coordinator; the only file that imports ray
"""

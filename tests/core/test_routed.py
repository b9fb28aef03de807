"""Columns give back the events that were put into them."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.routed import RoutedEvent, RoutedEvents, packed

TIMES = st.floats(allow_nan=False, width=64)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2**40),
        st.tuples(st.just(3), st.integers(0, 2**62)) | st.tuples(st.just(3), st.integers(0, 2**62), st.integers(0, 9)),
        TIMES,
        TIMES,
        st.sampled_from(["A.B", "C.D"]),
        st.sampled_from([(0,), (1, 4)]),
        st.binary(max_size=3) | st.tuples(st.integers(1, 2**40), st.integers(0, 2**64 - 1)),
        st.dictionaries(st.sampled_from(["a", ("b", "c")]), st.none() | st.text(max_size=2)),
        st.integers(0, 2**40),
        st.none() | st.text(min_size=1, max_size=2),
    ),
    max_size=6,
    unique_by=lambda event: event[0],
).map(lambda events: [RoutedEvent(*event) for event in events])


@given(EVENTS)
def test_events_come_out_as_they_went_in_also_of_another_process(events: list[RoutedEvent]) -> None:
    columns = RoutedEvents(3)
    for event in events:
        cited = (0, 0) if isinstance(event.raw, bytes) else event.raw
        row = packed(event.place, event.position[1], event.time_s, event.local_w_s, *cited, event.epoch_s)
        columns.append(row, (event.log_type, event.rules, event.known))
        if isinstance(event.raw, bytes):
            columns.raws[event.place] = event.raw
        if len(event.position) > 2:
            columns.subs[event.place] = event.position[2]
        if event.row_id is not None:
            columns.row_ids[event.place] = event.row_id

    for same in columns, pickle.loads(pickle.dumps(columns)):
        assert list(same) == events
        assert list(same) == events, "and once more"
        assert len(same) == len(events)
        assert repr(same) == f"RoutedEvents({list(map(tuple, events))})", "for the simulator's trace"
        assert same.routes == [(event.log_type, event.rules, event.known) for event in events]

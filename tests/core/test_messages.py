"""What is pickled by columns comes back as it was."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from cluster.core.messages import (
    AlertOutput,
    Counts,
    EpochExecuted,
    EpochGrouped,
    EventsRouted,
    FoundMatch,
    JoinedEvaluation,
    KeysCopied,
    Moves,
    Output,
    RuleCounts,
)
from cluster.core.routed import RoutedEvent
from cluster.core.watermark import Watermark
from rules.rule import Match
from rules.state import Row

MATCH = Match("t", "d", "LOW", '{"a":1}', "", "", "", ["SKIP"], None, True)
FOUND = [FoundMatch((0, at, 2), (0, at * 9, 1), "e", "T", 1.5, 2.5, MATCH) for at in range(3)]
EVENT = RoutedEvent(1, (0, 9), 1.0, 2.0, "T", (0, 1), b"{}", {"a": 1}, 3, None)
JOINING = [JoinedEvaluation((0, 1, 2), 0, 1.0, EVENT, ("k",))]
OUTPUTS = [Output((0, at, 2), (0, at), b"{}") for at in range(3)]
ALERTS = [AlertOutput((0, 1, 2), (0, 1), b"{}", "R", 1.0)]
ROWS = [Row("a", 1, None, None, 9), Row("b", None, ("x", "y"), None, 8), Row("c", None, None, "{}", None)]


@pytest.mark.parametrize(
    "message",
    [
        KeysCopied([]),
        KeysCopied(ROWS),
        EpochExecuted(3, 1, [], 0, []),
        EpochExecuted(3, 1, FOUND, 2, JOINING),
        EpochExecuted(3, 1, [], 0, [], EventsRouted(4, 1, ())),
        EpochGrouped(3, 1, Watermark(), Counts()),
        EpochGrouped(
            3, 1, Watermark(1.0, 2.0), Counts(5, rules={"R": RuleCounts(1)}), 7, (1, 2), Moves(1, 2, 0.5, 0.25), OUTPUTS,
            ALERTS, OUTPUTS[:1], OUTPUTS[1:],
        ),
    ],
)  # fmt: skip
def test_a_message_arrives_as_it_was_sent(message: Any) -> None:
    assert pickle.loads(pickle.dumps(message, pickle.HIGHEST_PROTOCOL)) == message

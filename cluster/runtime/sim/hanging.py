"""What stands in for a rule that does not return: it notes what the cells say, and the world ends the process for it.

A simulated run cannot wait, and an exception would not do: rules catch those. So the rule goes on, in a process that is
as good as dead: nothing that it does from here on leaves it.
"""

from __future__ import annotations

from cluster.core.poison import Cells, Hang

LIMIT_S = 15.0

_hang: Hang | None = None
_cells: Cells | None = None


def watch(cells: Cells | None) -> None:
    """What runs from here on tells by these cells where it is; None where nothing needs telling (oracle.py)."""
    global _cells, _hang
    _cells, _hang = cells, None


def never_returns() -> None:
    """Called by rules. Only the first hang of a process counts: there the real one ends."""
    global _hang
    if _hang is None:
        _hang = Hang((0, 0, 0), 0, True, LIMIT_S) if _cells is None else Hang.read(_cells, LIMIT_S)


def taken() -> Hang | None:
    """What hung since the last call, if anything did."""
    global _hang
    hang, _hang = _hang, None
    return hang

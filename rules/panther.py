"""What a rule module sees when it imports: the names that the format promises, resolved inside packs only.

Each module gets builtins of its own, with an `__import__` that knows the helper modules and the bound clock; sys.modules and
sys.path stay as they are.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from rules.clock import BOUND
from rules.event import PantherEvent
from rules.helpers import CACHING

_REACHING_ROOTS = frozenset({"panther_detection_helpers", "panther_oss_helpers", "rules", "importlib"})
"""Packages through which a rule might reach state."""


def _module(name: str, content: Mapping[str, Any]) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(content)
    return made


def _provided() -> dict[str, ModuleType]:
    caching = _module("panther_detection_helpers.caching", CACHING)
    enriched = _module("panther_core.enriched_event", {"PantherEvent": PantherEvent})
    return {
        **BOUND,
        "panther_detection_helpers": _module("panther_detection_helpers", {**CACHING, "caching": caching}),
        "panther_detection_helpers.caching": caching,
        "panther_oss_helpers": _module("panther_oss_helpers", CACHING),
        "panther_core": _module("panther_core", {"PantherEvent": PantherEvent, "enriched_event": enriched}),
        "panther_core.enriched_event": enriched,
    }


_PROVIDED = _provided()
_PROVIDED_ROOTS = frozenset(name.partition(".")[0] for name in _PROVIDED)


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    root = name.partition(".")[0]
    if level == 0 and root in _PROVIDED_ROOTS:
        if name not in _PROVIDED:  # the real package, should it be installed, would talk to a database
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return _PROVIDED[name if fromlist else root]
    return builtins.__import__(name, globals, locals, fromlist or (), level)


def _discard(*_: object, **__: object) -> None:
    """What print does in `run`: a rule's output has nowhere to go (DESIGN 11.34)."""


def rule_builtins(*, quiet: bool) -> dict[str, Any]:
    """The builtins of a rule module. `quiet` discards what it prints."""
    made = {**vars(builtins), "__import__": _import}
    if quiet:
        made["print"] = _discard
    return made


def reaches_state(tree: ast.Module) -> bool:
    """Whether a module might call a caching helper: it imports one anywhere, or imports in a way that cannot be read off."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                if any(alias.name.partition(".")[0] in _REACHING_ROOTS for alias in names):
                    return True
            case ast.ImportFrom(module=module):
                if (module or "").partition(".")[0] in _REACHING_ROOTS:
                    return True
            case ast.Name(id="__import__" | "exec" | "eval" | "__builtins__"):
                return True
    return False

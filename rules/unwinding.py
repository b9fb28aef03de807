"""Ending a rule for good that goes on after a helper has ended its evaluation.

A rule can swallow what a helper raises and then wait for a value that never comes: it asks again and again, or loops until it
has one. So here a trace function raises StateReached at every line of the rule: no handler, `finally` or context manager
of its own gets to do anything, and from however deep it is it comes back to its caller.

Python takes a trace function that raises away from the thread, and then from its frame. Therefore each frame has a trace function
of its own, an object that nobody else refers to: its weak reference tells when it is dropped, and puts the next one there.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from functools import partial
from types import CodeType, FrameType
from typing import Any

from rules.errors import StateReached
from rules.rule import PACK_PREFIX

_handled_is = ctypes.pythonapi.PyErr_SetExcInfo
_handled_is.argtypes = [ctypes.py_object] * 3
_handled_is.restype = None

_OURS = os.path.dirname(__file__) + os.sep


class Unwinding:
    """From the helper call that ends a rule for good until the caller has it back. In one thread."""

    def __init__(self) -> None:
        self._before = sys.gettrace()
        """A debugger's, or what measures coverage."""
        self._unraisable = sys.unraisablehook
        self._raised_in: FrameType | None = None
        """The frame in which a line has just raised, until it has a trace function again."""
        self._watched: dict[int, weakref.ref[Any]] = {}

    def begin(self, until: CodeType) -> None:
        """Take hold of every frame of the rule below the innermost frame of this code; again where it got away."""
        sys.unraisablehook = _say_nothing  # what a __del__ raises is printed otherwise
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not until:
            if _is_of_rule(frame):
                frame.f_trace = self._trace()
            frame = frame.f_back
        sys.settrace(self._call)

    def end(self) -> None:
        """Put back what was there before."""
        sys.settrace(self._before)
        sys.unraisablehook = self._unraisable
        self._watched = {}
        # A handler that is left by its trace function keeps its exception handled (CPython 3.11): the next rule's bare `raise`
        # would raise it. Nobody evaluates in a handler.
        _handled_is(ctypes.py_object(), ctypes.py_object(), ctypes.py_object())

    def _call(self, frame: FrameType, what: str, arg: Any) -> Any:
        return self._trace() if _is_of_rule(frame) else None

    def _trace(self) -> Any:
        trace = partial(self._step)
        watched = weakref.ref(trace, self._dropped)
        self._watched[id(watched)] = watched
        return trace

    def _step(self, frame: FrameType, what: str, arg: Any) -> Any:
        if what == "line":
            self._raised_in = frame
            raise StateReached
        return frame.f_trace

    def _dropped(self, watched: weakref.ref[Any]) -> None:
        self._watched.pop(id(watched), None)
        frame, self._raised_in = self._raised_in, None
        if frame is not None:
            frame.f_trace = self._trace()
            sys.settrace(self._call)


def _is_of_rule(frame: FrameType | None) -> bool:
    """It is a pack's, or called by one. Ours are never interrupted, nor what they call: they keep whole what rules share."""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PACK_PREFIX):
            return True
        if path.startswith(_OURS):
            return False
        frame = frame.f_back
    return False


def _say_nothing(unraisable: Any) -> None:
    pass

"""Stand-ins for time, datetime, uuid and random in rule modules: the present is the event's own time, chance is seeded.

A rule then gives the same answer in production, in a test, in a replay after a crash and in a backtest of last year.
Values are real ones: `datetime.now()` returns a datetime.datetime. What takes an explicit time is passed through.
"""

from __future__ import annotations

import datetime as real_datetime
import random as real_random
import time as real_time
import uuid as real_uuid
from collections.abc import Callable
from types import ModuleType
from typing import Any

from rules.evaluation import Evaluation, current


def _consulted() -> Evaluation:
    """The evaluation that runs, which from now on depends on more than on what it asks of its event."""
    evaluation = current()
    evaluation.varies = True
    return evaluation


def _now_s() -> float:
    return _consulted().event_time_s


def _now_ns() -> int:
    return round(_now_s() * 1e6) * 1000  # exact to the us


def _copy(module: ModuleType, name: str) -> ModuleType:
    made = ModuleType(name, module.__doc__)
    made.__dict__.update({key: value for key, value in vars(module).items() if key not in ("__name__", "__spec__")})
    return made


def _time() -> ModuleType:
    made: Any = _copy(real_time, "time")
    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(made, name, _now_s)
        setattr(made, f"{name}_ns", _now_ns)
    made.clock_gettime = lambda clk_id: _now_s()
    made.clock_gettime_ns = lambda clk_id: _now_ns()
    made.gmtime = lambda secs=None: real_time.gmtime(_now_s() if secs is None else secs)
    made.localtime = lambda secs=None: real_time.gmtime(_now_s() if secs is None else secs)  # TZ is UTC everywhere
    made.ctime = lambda secs=None: real_time.asctime(made.gmtime(secs))
    made.asctime = lambda t=None: real_time.asctime(made.gmtime() if t is None else t)
    made.strftime = lambda format, t=None: real_time.strftime(format, made.gmtime() if t is None else t)
    return made  # type: ignore[no-any-return]


_DATE: Any = real_datetime.date
_DATETIME: Any = real_datetime.datetime


class _Bound(type):
    """A class that stands for a real one: real instances are its instances."""

    real: type

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.real)


class _BoundDate(_DATE, metaclass=_Bound):  # type: ignore[misc]
    real = real_datetime.date

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return real_datetime.date(*args, **kwargs)

    @classmethod
    def today(cls) -> Any:
        return real_datetime.datetime.fromtimestamp(_now_s(), real_datetime.UTC).date()

    fromisoformat = real_datetime.date.fromisoformat
    fromtimestamp = real_datetime.date.fromtimestamp
    fromordinal = real_datetime.date.fromordinal


class _BoundDatetime(_DATETIME, metaclass=_Bound):  # type: ignore[misc]
    real = real_datetime.datetime

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return real_datetime.datetime(*args, **kwargs)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        now = real_datetime.datetime.fromtimestamp(_now_s(), real_datetime.UTC)
        return now.replace(tzinfo=None) if tz is None else now.astimezone(tz)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now()

    @classmethod
    def today(cls) -> Any:
        return cls.now()

    fromisoformat = real_datetime.datetime.fromisoformat
    fromtimestamp = real_datetime.datetime.fromtimestamp
    utcfromtimestamp = real_datetime.datetime.utcfromtimestamp
    fromordinal = real_datetime.datetime.fromordinal
    strptime = real_datetime.datetime.strptime
    combine = real_datetime.datetime.combine


def _datetime() -> ModuleType:
    made: Any = _copy(real_datetime, "datetime")
    made.date = _BoundDate
    made.datetime = _BoundDatetime
    return made  # type: ignore[no-any-return]


def _uuid() -> ModuleType:
    made: Any = _copy(real_uuid, "uuid")
    made.uuid1 = lambda node=None, clock_seq=None: real_uuid.UUID(int=_consulted().random.getrandbits(128), version=1)
    made.uuid4 = lambda: real_uuid.UUID(int=_consulted().random.getrandbits(128), version=4)
    return made  # type: ignore[no-any-return]


class _SeededRandom(real_random.Random):
    """random.Random, except that without a seed it takes one from the evaluation."""

    def __init__(self, x: Any = None) -> None:
        super().__init__(_consulted().random.getrandbits(64) if x is None else x)


class _SeededSystemRandom(_SeededRandom):
    """random.SystemRandom, which takes no seed."""

    def __init__(self, x: Any = None) -> None:
        super().__init__()

    def seed(self, *args: Any, **kwargs: Any) -> None:
        if not args or args[0] is not None:
            super().seed(*args, **kwargs)


def _random() -> ModuleType:
    made: Any = _copy(real_random, "random")
    made.Random = _SeededRandom
    made.SystemRandom = _SeededSystemRandom
    for name in dir(real_random):
        if isinstance(getattr(getattr(real_random, name), "__self__", None), real_random.Random):
            setattr(made, name, _drawn(name))
    return made  # type: ignore[no-any-return]


def _drawn(name: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: getattr(_consulted().random, name)(*args, **kwargs)


BOUND = {"time": _time(), "datetime": _datetime(), "uuid": _uuid(), "random": _random()}
"""Module name -> what rule modules get under it."""

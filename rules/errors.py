"""What can be wrong with a pack, each with its place and what to do. What a rule did wrong at run time is rule.py's RuleError."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A place in a pack; prints as `path:line`."""

    path: str
    line: int | None = None

    def __str__(self) -> str:
        return self.path if self.line is None else f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a pack; prints as `path:line: what is wrong: what to do`."""

    location: SourceLocation
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}: {self.remedy}"


class InvalidPack(Exception):
    """A pack cannot be loaded. Carries every problem of every file; prints one a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class FunctionReturnTypeError(TypeError):
    """A function of a rule returned something of another type than its contract says."""


class StateReached(BaseException):
    """Ends a probe at its first state access, and an evaluation at a second key group. Never leaves evaluate()."""

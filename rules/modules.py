"""Executing a pack's Python files: one instance for each rule and data model, one for each global, however many import it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from rules.errors import SourceLocation
from rules.globals import CannotRestore, Ours, Restorer, restorer_for, sets_attributes
from rules.helpers import CACHING
from rules.panther import HELPERS, PACKAGES, is_provided, module_builtins, reaches_state
from rules.rule import place_of
from rules.source import Source

Refuse = Callable[[str, int | None, str, str], None]
"""Takes a problem: path, line, what is wrong, what to do."""


@dataclass(slots=True, eq=False)
class Module:
    """A Python file that has been executed under a name."""

    made: ModuleType
    source: Source
    own_restorer: Restorer | None = None
    """What puts back what its functions may have changed; None until settled, and where there is nothing."""
    behind: tuple[Module, ...] = field(default=())
    """The globals that its functions can reach, directly or through each other; known once settled."""
    can_be_restored: bool = True
    """False where it, or a global behind it, changes what cannot be put back; that is refused."""

    @property
    def name(self) -> str:
        return self.made.__name__

    @property
    def namespace(self) -> dict[str, Any]:
        """The module's globals."""
        return vars(self.made)

    @property
    def reaches_state(self) -> bool:
        """False only where no import in it, or in what it imports, could lead to a caching helper."""
        return any(reaches_state(module.source) for module in (self, *self.behind))


class Modules:
    """The Python of one pack."""

    def __init__(self, files: Mapping[str, bytes], globals_: Mapping[str, str], refuse: Refuse, *, quiet: bool) -> None:
        """`globals_` are paths by GlobalID."""
        self._files = files
        self._paths = globals_
        self._refuse = refuse
        self._quiet = quiet
        self._sources: dict[str, Source | None] = {}
        self._globals: dict[str, Module] = {}
        self._failed: dict[str, BaseException] = {}

    def source(self, path: str) -> Source | None:
        """A file, parsed; what is wrong with it is refused once."""
        if path not in self._sources:
            self._sources[path] = self._parsed(path)
        return self._sources[path]

    def _parsed(self, path: str) -> Source | None:
        try:
            return Source(path, self._files[path])
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self._refuse(path, getattr(error, "lineno", None), f"no Python: {_reason(error)}", "mend the syntax")
            return None

    def load(self, name: str, path: str) -> Module | None:
        """An instance of a file, with `name` for its __name__. None where it cannot be loaded, which is refused."""
        source = self.source(path)
        if source is None:
            return None
        module = ModuleType(name)
        try:
            self._execute(module, source)
        except BaseException as error:
            self._say(source, error)
            return None
        return Module(module, source)

    def _execute(self, module: ModuleType, source: Source) -> None:
        namespace = vars(module)
        namespace.update(__file__=source.path, __builtins__=module_builtins(self._find, quiet=self._quiet))
        with _registered(module):
            exec(source.code, namespace)

    def _say(self, source: Source, error: BaseException) -> None:
        """Refuse a module whose execution raised."""
        if any(error is known for known in self._failed.values()):
            return  # said of the global
        place = place_of(error.__traceback__) or SourceLocation(source.path)
        if isinstance(error, ModuleNotFoundError) and error.name:
            self._refuse(place.path, place.line, f"there is no module {error.name}", _remedy(error.name))
        else:
            said = f"loading raises {type(error).__name__}: {error}"
            self._refuse(place.path, place.line, said, "mend the module")

    # --- globals -------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> ModuleType | None:
        """The global of a name, executed when it is first asked for; half-way through it for those it imports itself."""
        if name not in self._paths:
            return None
        if name in self._failed:
            raise self._failed[name]
        found = self._globals.get(name)
        return found.made if found is not None else self._load_global(name)

    def _load_global(self, name: str) -> ModuleType:
        source = self.source(self._paths[name])
        if source is None:
            self._failed[name] = ImportError(f"{name} cannot be read", name=name)
            raise self._failed[name]
        made = ModuleType(name)
        self._globals[name] = Module(made, source)
        try:
            self._execute(made, source)
        except BaseException as error:
            del self._globals[name]
            self._say(source, error)
            self._failed[name] = error
            raise
        if name in HELPERS:  # those of the pack would talk to a database
            vars(made).update(CACHING)
        return made

    def notices(self) -> Iterator[str]:
        """Globals that hide a package, a line each."""
        for name, path in sorted(self._paths.items()):
            if name not in HELPERS and (is_provided(name) or _is_installed(name)):
                yield f"{path}: the global {name} is imported in place of the Python package of that name"

    # --- what they may change ------------------------------------------------------------------------------------

    def settle(self, modules: Sequence[Module]) -> None:
        """Find what the functions of modules, and of globals, can reach and change.

        To be called once, when all have been executed: one may have put its own into another's list.
        """
        for module in modules:
            module.behind = self._behind(module.source)
        loaded = tuple(self._globals.values())
        for module in loaded:
            module.behind = self._behind(module.source)
        setting = {module.name for module in loaded if sets_attributes(module.source)}
        names = {module.name for module in (*loaded, *modules)}
        broken = {module for module in (*loaded, *modules) if not self._find_restorer(module, names, setting)}
        for module in modules:
            module.can_be_restored = broken.isdisjoint((module, *module.behind))

    def _behind(self, source: Source) -> tuple[Module, ...]:
        found: dict[str, Module] = {}
        waiting = [source]
        while waiting:
            source = waiting.pop()
            for name in sorted(self._paths if source.imports_dynamically else source.imports & self._paths.keys()):
                if name not in found and (module := self._executed(name)) is not None:
                    found[name] = module
                    waiting.append(module.source)
        return tuple(found.values())

    def _executed(self, name: str) -> Module | None:
        """A global, executed now if only functions import it: its content must not depend on which event is first."""
        try:
            self._find(name)
        except BaseException:
            return None
        return self._globals[name]

    def _find_restorer(self, module: Module, names: Set[str], setting: Set[str]) -> bool:
        """Whether what a module's functions change can be put back.

        `names` are those of all modules, `setting` of the globals that set attributes.
        """
        ours = Ours((each.made for each in (module, *module.behind)), names)
        attributes_set = any(each.name in setting for each in module.behind)
        try:
            module.own_restorer = restorer_for(module.source, module.namespace, ours, attributes_set=attributes_set)
        except CannotRestore as error:
            line = module.source.line_of(error.name)
            self._refuse(module.source.path, line, str(error), "make it inside the function that uses it")
            return False
        return True


def _reason(error: BaseException) -> str:
    return str(getattr(error, "msg", None) or error or type(error).__name__)


def _remedy(name: str) -> str:
    """What to do about a module that is not there."""
    root = name.partition(".")[0]
    if is_provided(name):
        return f"this part of {root} is not provided: do without it"
    if root in PACKAGES:
        return f"pip install {PACKAGES[root]}"
    return f"add a global with GlobalID: {root}, or pip install the package that holds it"


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def _registered(module: ModuleType) -> Iterator[None]:
    """While a module is executed: in sys.modules, where dataclasses look for the module of their annotations."""
    if module.__name__ in sys.modules:  # RuleID `json`, say: ours must not be imported in its place
        yield
        return
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        sys.modules.pop(module.__name__, None)

"""What a pack's module sees when it imports: the names that the format promises, resolved inside packs only.

Each module gets builtins of its own, with an `__import__` that knows the pack's globals, the helper modules and the bound
clock; sys.modules and sys.path stay as they are.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

from rules.clock import BOUND
from rules.event import ImmutableDict, ImmutableList, PantherEvent
from rules.helpers import CACHING
from rules.source import Source

HELPERS = frozenset({"panther_detection_helpers", "panther_oss_helpers"})
"""Modules that hold the caching helpers. Where a pack has a global of that name, ours stand in it in place of its own."""

_REACHING_ROOTS = HELPERS | {"rules", "importlib"}
"""Packages through which a rule might reach state."""

PACKAGES: Mapping[str, str] = {
    "bs4": "beautifulsoup4",
    "cryptography": "cryptography",
    "dateutil": "python-dateutil",
    "dns": "dnspython",
    "geopy": "geopy",
    "idna": "idna",
    "jmespath": "jmespath",
    "jsonpath_ng": "jsonpath-ng",
    "jwt": "PyJWT",
    "netaddr": "netaddr",
    "policyuniverse": "policyuniverse",
    "pycountry": "pycountry",
    "pytz": "pytz",
    "requests": "requests",
    "tldextract": "tldextract",
    "yaml": "PyYAML",
}
"""Modules that rules are known to import -> the package on PyPI that holds each."""


def _module(name: str, content: Mapping[str, Any]) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(content)
    return made


class _NoAws:
    """Any name of boto3: it can be imported and stand in annotations; calling it says why it cannot be used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _NoAws:
        if name.startswith("__"):
            raise AttributeError(name)
        return _NoAws(f"{self._name}.{name}")

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError(
            f"{self._name}: not supported here: a rule's result may depend on its events and helpers only"
        )


def _no_aws(name: str) -> ModuleType:
    """A module that has every name: classes to catch where they are called like exceptions."""

    def find(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        if attribute.endswith(("Error", "Exception")):
            found: Any = type(attribute, (Exception,), {"__module__": name})
        else:
            found = _NoAws(f"{name}.{attribute}")
        made.__dict__[attribute] = found
        return found

    made = _module(name, {"__getattr__": find})
    return made


def _provided() -> dict[str, ModuleType]:
    caching = _module("panther_detection_helpers.caching", CACHING)
    enriched = _module("panther_core.enriched_event", {"PantherEvent": PantherEvent})
    immutable = _module(
        "panther_core.immutable",
        {"ImmutableCaseInsensitiveDict": ImmutableDict, "ImmutableDict": ImmutableDict, "ImmutableList": ImmutableList},
    )
    core = {"PantherEvent": PantherEvent, "enriched_event": enriched, "immutable": immutable}
    boto3, botocore = _no_aws("boto3"), _no_aws("botocore")
    aws = {f"{root}.{part}": _no_aws(f"{root}.{part}") for root, part in _AWS_PARTS}
    for name, part in aws.items():
        root, _, attribute = name.partition(".")
        vars(boto3 if root == "boto3" else botocore)[attribute] = part
    return {
        **BOUND,
        **aws,
        "boto3": boto3,
        "botocore": botocore,
        "panther_detection_helpers": _module("panther_detection_helpers", {**CACHING, "caching": caching}),
        "panther_detection_helpers.caching": caching,
        "panther_oss_helpers": _module("panther_oss_helpers", CACHING),
        "panther_core": _module("panther_core", core),
        "panther_core.enriched_event": enriched,
        "panther_core.immutable": immutable,
        # Where packs of 2022 have the types of events from; nothing of the tool itself.
        "panther_analysis_tool": _module("panther_analysis_tool", core),
        "panther_analysis_tool.enriched_event": enriched,
        "panther_analysis_tool.immutable": immutable,
    }


_AWS_PARTS = (
    ("boto3", "dynamodb"), ("boto3", "session"), ("botocore", "client"), ("botocore", "config"), ("botocore", "exceptions"),
)  # fmt: skip

_PROVIDED = _provided()
_PROVIDED_ROOTS = frozenset(name.partition(".")[0] for name in _PROVIDED)

FindGlobal = Callable[[str], ModuleType | None]
"""The pack's global of a name, loaded; None where there is none. Raises what loading it raises."""


def is_provided(name: str) -> bool:
    """Whether a dotted name belongs to a package that stands in for a real one."""
    return name.partition(".")[0] in _PROVIDED_ROOTS


def _importer(find_global: FindGlobal) -> Callable[..., ModuleType]:
    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0:
            root = name.partition(".")[0]
            found = find_global(root)
            if found is not None:
                if name != root:
                    raise ModuleNotFoundError(f"No module named {name!r}; {root!r} is not a package", name=name)
                return found
            if root in _PROVIDED_ROOTS:
                if name not in _PROVIDED:  # the real package, should it be installed, would talk to a database
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
                return _PROVIDED[name if fromlist else root]
        return builtins.__import__(name, globals, locals, fromlist or (), level)

    return import_


def _discard(*_: object, **__: object) -> None:
    """What print does in `run`: a rule's output has nowhere to go (DESIGN 11.34)."""


def module_builtins(find_global: FindGlobal, *, quiet: bool) -> dict[str, Any]:
    """The builtins of a pack's module. `quiet` discards what it prints."""
    made = {**vars(builtins), "__import__": _importer(find_global)}
    if quiet:
        made["print"] = _discard
    return made


def reaches_state(source: Source) -> bool:
    """Whether a module might call a caching helper: it imports one anywhere, or imports in a way that cannot be read off."""
    return source.imports_dynamically or not source.imports.isdisjoint(_REACHING_ROOTS)

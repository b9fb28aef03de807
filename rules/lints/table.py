"""The lints: each a small function over the analysis of a pack, in a table with the reason why it matters.

A lint accuses only of what can be seen for certain or nearly so: what it does not understand it lets pass. A finding says what
is wrong and what to do; who knows better silences it with `# countersign: ignore[ID] reason`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, NamedTuple

from rules.lints.analysis import ADDING, Access, Analysis
from rules.lints.patterns import Pattern
from rules.lints.sources import Item, Module, Place
from rules.lints.values import WALL_CLOCK, Clock, Constant, Items, Values
from rules.rule import AUXILIARIES


class Found(NamedTuple):
    """What a lint has to say."""

    place: Place
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Lint:
    """One kind of thing to warn of."""

    find: Callable[[Analysis], Iterator[Found]]
    reason: str


# --- keys ---------------------------------------------------------------------------------------------------------


def _key_prefix(analysis: Analysis) -> Iterator[Found]:
    for rule_id, accesses in analysis.accesses.items():
        for access, pattern in _first_of_each_key(accesses):
            if not pattern.is_known or rule_id in pattern.literal:
                continue
            uses = analysis.uses[pattern.skeleton]
            if not pattern.is_named:
                # Who only reads another rule's keys has to build them as that one does.
                if rule_id in uses.writers or not uses.shared_on_purpose:
                    message = f"nothing in the key {pattern} names the rule"
                    yield Found(
                        access.place, message, 'begin it with f"{__name__}:", or with a name that its readers use too'
                    )
            elif (others := sorted((uses.readers | uses.writers) - {rule_id})) and not uses.shared_on_purpose:
                message = f"the key {pattern} is also read and written by {', '.join(others)}"
                yield Found(
                    access.place, message, 'begin it with f"{__name__}:", or silence this where they mean to share it'
                )


def _first_of_each_key(accesses: list[Access]) -> Iterator[tuple[Access, Pattern]]:
    seen = set()
    for access in accesses:
        for pattern in access.keys:
            if pattern.skeleton not in seen:
                seen.add(pattern.skeleton)
                yield access, pattern


def _no_common_tag(analysis: Analysis) -> Iterator[Found]:
    for accesses in analysis.accesses.values():
        found = next(_two_keys(accesses), None) or next(_key_per_element(accesses), None)
        if found is not None:
            yield found


_TAG_REMEDY = 'give its keys a common {tag}, such as f"{__name__}:{{{user}}}:what"'


def _two_keys(accesses: list[Access]) -> Iterator[Found]:
    for one, two in combinations(accesses, 2):
        known = one.keys and two.keys and all(key.is_known for key in (*one.keys, *two.keys))
        differ = not any(a.may_equal(b) for a in one.keys for b in two.keys)
        if known and differ and not one.excludes(two) and not _share_tag([*one.keys, *two.keys]):
            yield Found(two.place, f"one evaluation uses the keys {one.keys[0]} and {two.keys[0]}", _TAG_REMEDY)


def _key_per_element(accesses: list[Access]) -> Iterator[Found]:
    for access in accesses:
        for pattern in access.keys:
            varies = pattern.is_known and any(hole.loop in access.loops for hole in pattern.holes)
            if varies and (pattern.tag is None or any(hole.loop in access.loops for hole in pattern.tag.holes)):
                yield Found(
                    access.place, f"one evaluation uses a key for each element of a loop: {pattern}", _TAG_REMEDY
                )


def _share_tag(patterns: list[Pattern]) -> bool:
    tags = [pattern.tag for pattern in patterns]
    first = tags[0]
    return first is not None and all(tag is not None and first.may_equal(tag) for tag in tags)


# --- expiry and values ----------------------------------------------------------------------------------------------


def _no_expiry(analysis: Analysis) -> Iterator[Found]:
    for accesses in analysis.accesses.values():
        expiring = [access for access in accesses if _sets_expiry(access)]
        for access in accesses:
            if access.helper in ADDING and not any(_may_share_key(access, other) for other in expiring):
                key = f"the key {access.keys[0]}" if access.keys else "the key"
                yield Found(
                    access.place,
                    f"{access.helper}() sets no expiry: {key} stays for 90 days",
                    "give epoch_seconds, event.event_time_epoch() + 3600 for an hour, or call set_key_expiration()",
                )


def _sets_expiry(access: Access) -> bool:
    if access.helper in ("set_key_expiration", "evaluate_threshold"):
        return True
    return access.expiry is not None and any(value != Constant(None) for value in access.expiry)


def _may_share_key(one: Access, two: Access) -> bool:
    return not (one.keys and two.keys) or any(a.may_equal(b) for a in one.keys for b in two.keys)


def _expired(analysis: Analysis) -> Iterator[Found]:
    remedy = "give a time to come: event.event_time_epoch() + seconds, or seconds from now"
    for access in _every(analysis):
        said = {_expiry_said(value) for value in access.expiry or ()}
        for message in sorted(said - {""}) if "" not in said else ():
            yield Found(access.place, f"{access.helper}(): {message}", remedy)


def _expiry_said(value: Any) -> str:
    """What is wrong with one value of an expiry; empty where nothing is."""
    match value:
        case Clock(offset_s=float() | int() as offset) if offset <= 0:
            return "the key expires at the event's own time, which is at once"
        case Constant(value=float() | int() as seconds) if seconds <= 0:
            return f"with an expiry of {seconds:g} the key has expired already"
        case Constant(value=float() | int() as seconds) if 1e9 <= seconds < 1e11:
            return f"the expiry {seconds:g} is one fixed moment, {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    return ""


def _set_value(analysis: Analysis) -> Iterator[Found]:
    for access in _every(analysis):
        if not access.helper.endswith("_string_set") or "val" not in access.values:
            continue
        values = access.values["val"]
        if values and all(value == Constant(None) for value in values):
            yield Found(access.place, f"{access.helper}() with None raises TypeError", "give texts")
        elif _may_hold_none(values):
            yield Found(access.place, f"{access.helper}() with None among the members raises TypeError", "leave it out")
        elif access.helper == "put_string_set" and values and all(isinstance(value, Pattern) for value in values):
            message = "put_string_set() with one text makes a set of its letters"
            yield Found(access.place, message, "put the text into a list: [text]")
        else:
            yield from _fields_that_may_be_absent(access)


def _may_hold_none(values: Values) -> bool:
    return any(isinstance(value, Items) and Constant(None) in value.elements for value in values)


def _fields_that_may_be_absent(access: Access) -> Iterator[Found]:
    """Members that are looked up in place, so that nobody can have looked whether they are there."""
    given = access.arguments["val"]
    members = given.elts if isinstance(given, ast.List | ast.Tuple | ast.Set) else [given]
    absent = [
        ast.unparse(member)
        for member in members
        if (looked_up := _lookup(member)) is not None
        and not looked_up.has_default
        and not looked_up.keys[0].startswith("p_")
        and _times_named(access.function, looked_up.keys[-1]) == 1
    ]
    if absent:
        message = f"{access.helper}() raises TypeError where {', '.join(absent)} is None"
        yield Found(access.place, message, "give a default, or leave the member out")


def _every(analysis: Analysis) -> Iterator[Access]:
    for accesses in analysis.accesses.values():
        yield from accesses


# --- what is called -------------------------------------------------------------------------------------------------

_CLOCK_WITHOUT = {"time.localtime": 0, "time.gmtime": 0, "time.ctime": 0, "time.asctime": 0, "time.strftime": 1}
"""Calls that mean the present with no more arguments than these."""


def _wall_clock(analysis: Analysis) -> Iterator[Found]:
    for module, call, name in _calls(analysis):
        if name in WALL_CLOCK or len(call.args) == _CLOCK_WITHOUT.get(name, -1):
            message = f"{name}() gives the event's own time here, not the wall clock"
            yield Found(module.place(call), message, "write event.event_time_epoch(), which says so")


_OUTSIDE = (
    "aiohttp.", "boto3.", "botocore.", "ftplib.", "http.client.", "httpx.", "io.open", "open", "os.open", "os.popen", "os.remove",
    "os.rename", "os.system", "os.unlink", "paramiko.", "requests.", "shutil.", "smtplib.", "socket.create_connection",
    "socket.get", "socket.socket", "subprocess.", "urllib.request.", "urllib3.",
)  # fmt: skip
"""Names, and beginnings of names that end in a dot or stand for several."""
_INSIDE = ("boto3.dynamodb.", "requests.exceptions.", "requests.compat.", "requests.utils.")


def _outside_access(analysis: Analysis) -> Iterator[Found]:
    for module, call, name in _calls(analysis):
        reaches = name == "open" or (name.startswith(_OUTSIDE) and not name.startswith(("open", *_INSIDE)))
        if reaches:
            message = (
                f"{name}() reaches outside: it may be called any number of times, and answer otherwise in a replay"
            )
            yield Found(module.place(call), message, "bring the data as a lookup table")


def _calls(analysis: Analysis) -> Iterator[tuple[Module, ast.Call, str]]:
    """The calls inside functions, with what is called where that is a plain name that the module does not define."""
    for module in analysis.modules:
        for node in module.nodes_in_functions:
            if isinstance(node, ast.Call):
                name = module.dotted(node.func)
                if name and (name not in module.names or name in module.imports.values()):
                    yield module, node, name


_CHANGING = frozenset(
    {
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
    }
    | {"reverse", "setdefault", "sort", "update"}
)


def _global_kept(analysis: Analysis) -> Iterator[Found]:
    for module in analysis.modules:
        candidates = (module.constants.keys() | module.declared_global) - _assigned_afresh(module)
        for function in module.outermost_functions if candidates else ():
            own: set[str] | None = None
            for node, name in _changes(function):
                if name not in candidates:
                    continue
                own = _local_names(function, module.declared_global) if own is None else own
                if name not in own:
                    candidates.discard(name)
                    message = f"what a function puts into the global {name} is gone before the next evaluation"
                    yield Found(module.place(node), message, "keep it with a caching helper")


def _changes(function: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Where content of a name is changed, or the name is counted on."""
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if method in _CHANGING:
                yield node, name
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                yield node, name
            case ast.AugAssign(target=ast.Name(id=name)):
                yield node, name


def _local_names(function: ast.AST, declared_global: frozenset[str]) -> set[str]:
    names = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    names |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names - declared_global


def _assigned_afresh(module: Module) -> set[str]:
    """Globals that functions assign without looking at what they held: they only carry something to the next function."""
    return {
        target.id
        for node in (module.nodes_in_functions if module.declared_global else ())
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in module.declared_global and not _mentions(node.value, target.id)
    }


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == name for each in ast.walk(node))


# --- titles and dedup strings ----------------------------------------------------------------------------------------


class _Lookup(NamedTuple):
    """An expression that looks a field up."""

    keys: tuple[str, ...]
    has_default: bool


def _lookup(node: ast.AST) -> _Lookup | None:
    """event.get("x"), event.deep_get("x", "y", default=...) and their like."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(), attr="get" | "deep_get" | "udm" | "deep_walk" as method),
            args=[first, *more] as given, keywords=keywords,
        ) if isinstance(first, ast.Constant):  # fmt: skip
            keys = [given[0]] if method == "get" else given
            texts = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
            default = more[-1:] if method == "get" else [each.value for each in keywords if each.arg == "default"]
            says_none = all(isinstance(each, ast.Constant) and each.value is None for each in default)
            return _Lookup(tuple(texts), not says_none) if texts else None
    return None


def _can_raise(analysis: Analysis) -> Iterator[Found]:
    for module in {id(item.module): item.module for item in analysis.sources.detections if item.module}.values():
        looked_at = _names_looked_at(module)
        for name in ("title", "dedup"):
            function = module.functions.get(name)
            if function is None or not function.args.args:
                continue
            event = function.args.args[0].arg
            for node, key, message, remedy in _raising(function, event):
                if key not in looked_at and _times_named(function, key) == 1:
                    yield Found(module.place(node), f"{name}() {message}", remedy)


def _names_looked_at(module: Module) -> set[str]:
    """Texts in what decides on a match: a field that is looked at there is likely to be there."""
    deciding = [function for name, function in module.functions.items() if name not in AUXILIARIES]
    return {text for function in deciding for text in _texts(function)}


def _texts(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def _times_named(function: ast.AST, key: str) -> int:
    return sum(text == key for text in _texts(function))


def _raising(function: ast.FunctionDef, event: str) -> Iterator[tuple[ast.expr, str, str, str]]:
    """(where, the field, what it does, what to do) for each expression that raises on a field that is not there."""
    for node in _unprotected(function):
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as key), ctx=ast.Load()) if (
                name == event
            ):
                yield node, key, f"raises KeyError where the event has no {key}", f'write {event}.get("{key}", "...")'
            case ast.Call(func=ast.Name(id="int" | "float" as number), args=[argument]):
                field = _lookup(argument)
                if field is not None and not field.has_default:
                    text = ast.unparse(argument)
                    yield (
                        node,
                        field.keys[-1],
                        f"raises where {text} is no number",
                        f"leave {number}() away, or catch it",
                    )
            case ast.Attribute(value=base) | ast.Subscript(value=base):
                field = _lookup(base)
                if field is not None and not field.has_default:
                    yield node, field.keys[-1], f"raises where {ast.unparse(base)} is None", "give it a default"
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                for one, other in ((left, right), (right, left)):
                    field = _lookup(one)
                    if field is not None and not field.has_default and _is_text(other):
                        message = f"raises TypeError where {ast.unparse(one)} is no text"
                        yield node, field.keys[-1], message, 'write f"{...}", which takes anything'


def _is_text(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _is_text(left) or _is_text(right)
    return False


def _unprotected(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a function, the bodies of `try` apart."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Try) and child.handlers:
            continue
        yield child
        yield from _unprotected(child)


# --- YAML -------------------------------------------------------------------------------------------------------------


def _threshold_dedup(analysis: Analysis) -> Iterator[Found]:
    for item in analysis.sources.detections:
        threshold = item.get("Threshold", int)
        if threshold is None or threshold <= 1 or (item.module is None and "Detection" not in item.document):
            continue
        groups = {"GroupBy", "AlertTitle"} & item.document.keys()
        if item.module is not None:
            groups |= {"title", "dedup"} & item.module.names or set(item.module.stars)
        if not groups:
            message = f"Threshold is {threshold} and all matches count together, whoever they are about"
            yield Found(
                item.place("Threshold"), message, "define dedup(event), which says whose matches count together"
            )


def _dedup_period(analysis: Analysis) -> Iterator[Found]:
    for item in analysis.sources.detections:
        minutes = item.get("DedupPeriodMinutes", int)
        if minutes is not None and 0 <= minutes < 5:
            there = "ignores it" if minutes == 0 else "takes 5"
            message = f"DedupPeriodMinutes is {minutes}: taken as it stands here, where Panther {there}"
            yield Found(item.place("DedupPeriodMinutes"), message, "give 5 or more")


def _mock_name(analysis: Analysis) -> Iterator[Found]:
    for item in analysis.sources.detections:
        if item.module is None or item.module.stars:
            continue
        for keys, mock in _mocks(item):
            name = mock.get("objectName")
            if isinstance(name, str) and name not in item.module.names:
                message = f"the mock {name} matches no name of {item.module.path}"
                yield Found(item.place(*keys), message, "name what the module defines or imports, or remove the mock")


def _mocks(item: Item) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    """The mocks of an item's tests, with the keys that lead to each."""
    for number, test in enumerate(item.get("Tests", list) or ()):
        mocks = test.get("Mocks") if isinstance(test, dict) else None
        for index, mock in enumerate(mocks if isinstance(mocks, list) else ()):
            if isinstance(mock, dict):
                yield ("Tests", number, "Mocks", index), mock


def _duplicate_test(analysis: Analysis) -> Iterator[Found]:
    for item in analysis.sources.detections:
        first: dict[Any, int] = {}
        for number, test in enumerate(item.get("Tests", list) or ()):
            name = test.get("Name") if isinstance(test, dict) else None
            if isinstance(name, str) and first.setdefault(name, number) != number:
                line = item.place("Tests", first[name], "Name").line
                message = f"the test in line {line} has the name {name!r} too"
                yield Found(item.place("Tests", number, "Name"), message, "give each a name of its own")


def _unused_helper(analysis: Analysis) -> Iterator[Found]:
    imported = {
        dotted.partition(".")[0] for module in analysis.modules for dotted in (*module.imports.values(), *module.stars)
    }
    for item in analysis.sources.items:
        if item.kind == "global" and item.module is not None and item.id not in imported:
            yield Found(item.place("GlobalID"), f"no module imports the helper {item.id}", "remove it")


# --- the table --------------------------------------------------------------------------------------------------------

LINTS: Mapping[str, Lint] = {
    "key-prefix": Lint(_key_prefix, "all rules share one space of keys: two that build the same key count each other's events"),
    "no-expiry": Lint(_no_expiry, "state that nobody takes away grows, and old events go on counting for 90 days"),
    "expired": Lint(_expired, "an expired key is absent at once: the rule never sees what it wrote"),
    "set-value": Lint(_set_value, "members of a set are texts, and the helpers take a text for a list of its letters"),
    "no-common-tag": Lint(_no_common_tag, "keys on different shards make an evaluation wait for the serial lane"),
    "wall-clock": Lint(_wall_clock, "results do not depend on when they are computed: the present is the event's time"),
    "outside-access": Lint(_outside_access, "an evaluation may run again, and what it did outside is not undone"),
    "global-kept": Lint(_global_kept, "globals are put back before each evaluation: results do not depend on the shard"),
    "can-raise": Lint(_can_raise, "a title or dedup that raises becomes one default: all alerts fall together"),
    "threshold-dedup": Lint(_threshold_dedup, "matches are counted by dedup string: without title() and dedup(), one for all"),
    "dedup-period": Lint(_dedup_period, "the same rule would group its alerts otherwise in Panther"),
    "mock-name": Lint(_mock_name, "a mock of a name that the module does not have fails its test"),
    "duplicate-test": Lint(_duplicate_test, "results are reported, and tests chosen, by name"),
    "unused-helper": Lint(_unused_helper, "it is loaded, shipped and read by people for nothing"),
}  # fmt: skip

"""Simple detections and inline filters: rules written as conditions in YAML, compiled into functions (PANTHER_FORMAT 1.4).

An expression is one of

    {KEY, Condition}                                a condition of presence or of addresses
    {KEY, Condition, Value: constant}               a comparison
    {KEY, Condition: IsIn | IsNotIn, Values: [constant, ...]}
    {Condition, Values: [KEY, KEY]}                 a comparison of the first with the second
    {KEY, Condition: AnyElement | AllElements | OnlyOneElement | NoElement, Expressions: [expression, ...]}
    {Condition: AlwaysTrue | AlwaysFalse}
    {All | Any | OnlyOne | None: [expression, ...]}

where KEY is one of

    Key: name                                       a field of the event
    DeepKey: [name, index, ...]                     a path, step by step
    KeyPath: name.name[2].name[*].name              a path as text; a name with a dot or bracket stands in double quotes
    Enrichment: {Table, Selector, FieldPath}        a field of p_enrichment.<Table>.<Selector>

and the conditions are those of conditions.py. InlineFilters know KeyPath, Enrichment, All and Any, and nothing that looks at
elements, at two keys or at no key. Names of fields count without regard to case, as everywhere in events.

Decisions where Panther's pages leave one to the reader:

    a path with [*]        is the list of what it finds, nulls left out; absent where there is no list at the first [*]
    All, None of nothing   hold; Any and OnlyOne of nothing do not. Expressions side by side are an All
    None                   holds where no expression does
    ...Element             Expressions look into the element; all of them must hold for it. An element that is no object has no
                           fields. Of an empty list: AllElements and NoElement hold. Of what is no list: only NoElement holds
    AlertTitle             {path} is text as it stands, other values as JSON, null and absent as <unknown>; there is no escape
    AlertContext           absent is null
    GroupBy                one key: its value, as in AlertTitle, but absent and null are empty, hence the default dedup string;
                           several: the JSON list of their values, which tells ("a", "bc") from ("ab", "c")
    DynamicSeverities      the first whose Conditions all hold

An absent field, in a detection and in a filter (Panther: "If an event does not contain the field the filter is evaluating,
the filter will pass"; a null is there, and passes only what holds for null):

    condition                                  detection      filter
    DoesNotExist, IsNull, IsNullOrEmpty        holds          holds
    Exists, IsNotNull, IsNotNullOrEmpty        does not       does not: to ask for presence is to mean it
    addresses and comparisons                  does not       holds
    inverse comparisons                        holds          holds
    an empty filter, All or Any                -              holds

Nothing here raises while it runs, whatever JSON an event holds.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rules.conditions import ABSENT, ADDRESS, COMPARISONS, PRESENCE, UNFIT, Comparison, Predicate, is_scalar
from rules.event import ImmutableDict, ImmutableList, PantherEvent
from rules.guards.facts import ABSENT as NOT_THERE
from rules.guards.facts import ALWAYS, NEVER, Facts, both, either, one_of
from rules.rule import SEVERITIES, Function

_Path = tuple[str | int, ...]
Refuse = Callable[[_Path, str, str], None]
"""Takes a problem: the keys that lead to it, what is wrong, what to do."""

_Get = Callable[[Any], Any]
"""Finds a value in an event or an element; ABSENT where there is none."""

_EACH: Any = object()
"""The step [*] of a path."""

_KEYS = ("Key", "DeepKey", "KeyPath", "Enrichment")
_COMBINATORS = ("All", "Any", "OnlyOne", "None")
_QUANTIFIERS = ("AllElements", "AnyElement", "NoElement", "OnlyOneElement")
_ABSOLUTES = {"AlwaysTrue": True, "AlwaysFalse": False}
_EXPRESSION_KEYS = (*_KEYS, *_COMBINATORS, "Condition", "Value", "Values", "Expressions")
_CONDITIONS = (*COMPARISONS, *ADDRESS, *PRESENCE, *_QUANTIFIERS, *_ABSOLUTES)

_MAX_DEPTH = 30
"""Of expressions in expressions. Nobody means more; a YAML alias inside itself has no end."""


def compile_detection(document: Mapping[str, Any], refuse: Refuse) -> dict[str, Function] | None:
    """The functions of the module contract that a rule's YAML describes: rule, title, alert_context, dedup and severity,
    those of them that it does. None where something was refused."""
    compiler = _Compiler(refuse, in_filter=False)
    functions: dict[str, Function] = {}
    for key, name, make in (
        ("Detection", "rule", compiler.detection),
        ("AlertTitle", "title", compiler.title),
        ("AlertContext", "alert_context", compiler.context),
        ("GroupBy", "dedup", compiler.dedup),
        ("DynamicSeverities", "severity", compiler.severity),
    ):
        if key in document:
            function = make((key,), document[key])
            if function is not None:
                functions[name] = function
    return None if compiler.refused else functions


def compile_filters(filters: Any, refuse: Refuse) -> Callable[[PantherEvent], bool] | None:
    """Whether an event passes the InlineFilters of a rule; None where all do, and where something was refused."""
    compiler = _Compiler(refuse, in_filter=True)
    passes = compiler.all_of(("InlineFilters",), filters)
    return None if passes is _always else passes


def facts_of_detection(document: Mapping[str, Any]) -> Facts:
    """What must hold of a raw event for a Detection that compiles to hold."""
    return _all_facts(document.get("Detection", ()), in_filter=False)


def facts_of_filters(filters: Sequence[Mapping[str, Any]]) -> Facts:
    """What must hold of a raw event for it to pass InlineFilters that compile. They let pass what has no such field."""
    return _all_facts(filters, in_filter=True)


def _all_facts(expressions: Sequence[Mapping[str, Any]], *, in_filter: bool) -> Facts:
    facts = ALWAYS
    for node in expressions:
        facts = both(facts, _facts(node, in_filter=in_filter))
    return facts


def _facts(node: Mapping[str, Any], *, in_filter: bool) -> Facts:
    """Of comparisons of a field with constants, and of what combines such."""
    if "All" in node:
        return _all_facts(node["All"], in_filter=in_filter)
    if "Any" in node:
        if in_filter and not node["Any"]:
            return ALWAYS
        facts = NEVER
        for each in node["Any"]:
            facts = either(facts, _facts(each, in_filter=in_filter))
        return facts
    path = _path_of(node)
    # Guards look at events as they were written, where derived fields are not.
    if path is None or path[0].lower().startswith("p_"):
        return ALWAYS
    match node.get("Condition"):
        case "Equals":
            values = [node.get("Value")]
        case "IsIn":
            values = list(node.get("Values", ()))
        case "IsNull":
            return one_of(path, [None, NOT_THERE])
        case _:
            return ALWAYS
    return one_of(path, [*values, NOT_THERE] if in_filter else values)


def _path_of(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The path of names that an expression's key is; None for any other key."""
    if "Key" in node:
        return (node["Key"],)
    steps = node["DeepKey"] if "DeepKey" in node else _steps_of(node.get("KeyPath", ""))
    return tuple(steps) if steps and all(type(step) is str for step in steps) else None


# --- where values are -------------------------------------------------------------------------------------------

_STEP = re.compile(r'(?:^|\.)(?:"([^"]+)"|([^.\[\]"]+))|\[(\*|-?[0-9]{1,9})\]')


def _steps_of(path: str) -> tuple[Any, ...] | None:
    """A KeyPath, taken apart into names, indices and _EACH; None where it is none."""
    steps: list[Any] = []
    end = 0
    while found := _STEP.match(path, end):
        quoted, name, index = found.groups()
        steps.append(quoted or name or (_EACH if index == "*" else int(index)))
        end = found.end()
    return tuple(steps) if end == len(path) and path[:1] not in ("", ".", "[") else None


def _getter(steps: Sequence[Any]) -> _Get:
    if _EACH in steps:
        return _each_getter(steps)
    first, *rest = steps
    if not rest:
        return lambda event: event.get(first, ABSENT)

    def get(event: Any) -> Any:
        value = event.get(first, ABSENT)
        for step in rest:
            value = _take(value, step)
        return value

    return get


def _take(value: Any, step: str | int) -> Any:
    if isinstance(step, str):
        return value.get(step, ABSENT) if isinstance(value, ImmutableDict) else ABSENT
    there = isinstance(value, ImmutableList) and -len(value) <= step < len(value)
    return value[step] if there else ABSENT


def _each_getter(steps: Sequence[Any]) -> _Get:
    first = steps.index(_EACH)
    head, tail = _getter(steps[:first]), steps[first + 1 :]

    def get(event: Any) -> Any:
        values = head(event)
        if not isinstance(values, ImmutableList):
            return ABSENT
        found: list[Any] = list(values)
        for step in tail:
            if step is _EACH:
                found = [element for value in found if isinstance(value, ImmutableList) for element in value]
            else:
                found = [_take(value, step) for value in found]
        return ImmutableList([value for value in found if value is not None and value is not ABSENT])

    return get


def _as_text(value: Any) -> str:
    """A value in a title or a dedup string; empty where there is none."""
    if isinstance(value, str):
        return value
    return "" if value is None or value is ABSENT else _as_json(value)


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, default=PantherEvent.json_encoder, ensure_ascii=False)
    except RecursionError:
        return "<nested too deep>"


# --- expressions, combined ---------------------------------------------------------------------------------------


def _always(_: Any) -> bool:
    return True


def _never(_: Any) -> bool:
    return False


def _all(tests: Sequence[Predicate]) -> Predicate:
    needed = [test for test in tests if test is not _always]
    if len(needed) < 2:
        return needed[0] if needed else _always

    def holds(event: Any) -> bool:
        for test in needed:  # noqa: SIM110 - a generator would cost more than the tests
            if not test(event):
                return False
        return True

    return holds


def _any(tests: Sequence[Predicate]) -> Predicate:
    if _always in tests:
        return _always
    return tests[0] if len(tests) == 1 else lambda event: any(test(event) for test in tests)


def _only_one(tests: Sequence[Predicate]) -> Predicate:
    return lambda event: sum(test(event) for test in tests) == 1


def _none(tests: Sequence[Predicate]) -> Predicate:
    return lambda event: not any(test(event) for test in tests)


_COMBINE = {"All": _all, "Any": _any, "OnlyOne": _only_one, "None": _none}

_OVER: dict[str, Callable[[Iterable[bool]], bool]] = {
    "AllElements": all,
    "AnyElement": any,
    "NoElement": lambda results: not any(results),
    "OnlyOneElement": lambda results: sum(results) == 1,
}

_NO_FIELDS = ImmutableDict({})


def _elements(get: _Get, condition: str, test: Predicate) -> Predicate:
    decide, without_list = _OVER[condition], condition == "NoElement"

    def holds(event: Any) -> bool:
        value = get(event)
        if not isinstance(value, ImmutableList):
            return without_list
        return decide(test(element if isinstance(element, ImmutableDict) else _NO_FIELDS) for element in value)

    return holds


def _of_value(get: _Get, holds_for: Predicate, absent: bool) -> Predicate:
    def holds(event: Any) -> bool:
        value = get(event)
        return absent if value is ABSENT else holds_for(value)

    return holds


def _compared(get: _Get, comparison: Comparison, operand: Any, absent: bool) -> Predicate:
    compare, inverse = comparison.holds, comparison.inverse

    def holds(event: Any) -> bool:
        value = get(event)
        return absent if value is ABSENT else compare(value, operand) is not inverse

    return holds


def _compared_with_each_other(get: _Get, get_other: _Get, comparison: Comparison) -> Predicate:
    prepare, compare, inverse = comparison.prepare, comparison.holds, comparison.inverse

    def holds(event: Any) -> bool:
        value, other = get(event), get_other(event)
        operand = UNFIT if other is ABSENT else prepare(other)
        return inverse if operand is UNFIT else compare(value, operand) is not inverse

    return holds


# --- from YAML ---------------------------------------------------------------------------------------------------


class _Compiler:
    """Turns what stands in the YAML into functions. None wherever something was refused."""

    def __init__(self, refuse: Refuse, *, in_filter: bool) -> None:
        self._report = refuse
        self._in_filter = in_filter
        self._too_deep = False
        self.refused = False

    def _refuse(self, where: _Path, message: str, remedy: str) -> None:
        self.refused = True
        self._report(where, message, remedy)

    # --- the keys of a rule

    def detection(self, where: _Path, node: Any) -> Function | None:
        if node == []:
            self._refuse(
                where, "Detection is empty", "add an expression; {Condition: AlwaysTrue} holds for every event"
            )
        return self.all_of(where, node)

    def all_of(self, where: _Path, node: Any) -> Predicate | None:
        return self._combined(where, "All", node, inside=False)

    def title(self, where: _Path, node: Any) -> Function | None:
        if not isinstance(node, str):
            self._refuse(where, f"{where[-1]} holds {_shown(node)}", "give a text")
            return None
        texts = re.split(r"\{([^{}]*)\}", node)
        gets = [self._path(where, path) for path in texts[1::2]]
        made = [get for get in gets if get is not None]

        def title(event: PantherEvent) -> str:
            found = (_as_text(value) if not _nothing(value := get(event)) else "<unknown>" for get in made)
            return texts[0] + "".join(text + after for text, after in zip(found, texts[2::2], strict=True))

        return title if len(made) == len(gets) else None

    def context(self, where: _Path, node: Any) -> Function | None:
        gets: dict[str, _Get] = {}
        for number, each in enumerate(self._list(where, node)):
            here = (*where, number)
            if not self._mapping(here, each, ("KeyName", "KeyValue")):
                continue
            name = each["KeyName"]
            get = self._key((*here, "KeyValue"), each["KeyValue"])
            if not isinstance(name, str):
                self._refuse((*here, "KeyName"), f"KeyName holds {_shown(name)}", "give a text")
            elif name in gets:
                self._refuse((*here, "KeyName"), f"KeyName {name!r} is twice", "give each a name of its own")
            elif get is not None:
                gets[name] = get

        def alert_context(event: PantherEvent) -> dict[str, Any]:
            return {name: None if (value := get(event)) is ABSENT else value for name, get in gets.items()}

        return alert_context

    def dedup(self, where: _Path, node: Any) -> Function | None:
        found = [self._key((*where, number), each) for number, each in enumerate(self._list(where, node))]
        gets = [get for get in found if get is not None]
        if not gets:
            return None
        if len(gets) == 1:
            return lambda event: _as_text(gets[0](event))
        return lambda event: _as_json([None if (value := get(event)) is ABSENT else value for get in gets])

    def severity(self, where: _Path, node: Any) -> Function | None:
        changes: list[tuple[Predicate, str]] = []
        for number, each in enumerate(self._list(where, node)):
            here = (*where, number)
            if not self._mapping(here, each, ("ChangeTo", "Conditions")):
                continue
            severity = each["ChangeTo"]
            test = self.all_of((*here, "Conditions"), each["Conditions"])
            if not isinstance(severity, str) or severity.upper() not in SEVERITIES:
                self._refuse(
                    (*here, "ChangeTo"), f"{_shown(severity)} is no severity", f"give one of {', '.join(SEVERITIES)}"
                )
            elif test is not None:
                changes.append((test, severity.upper()))
        return lambda event: next((severity for test, severity in changes if test(event)), "DEFAULT")

    # --- expressions

    def _combined(self, where: _Path, name: str, node: Any, *, inside: bool) -> Predicate | None:
        if not isinstance(node, list):
            self._refuse(where, f"{where[-1]} holds {_shown(node)}", "give a list of expressions")
            return None
        found = [self._expression((*where, number), each, inside) for number, each in enumerate(node)]
        tests = [test for test in found if test is not None]
        if len(tests) < len(found):
            return None
        return _always if self._in_filter and not tests else _COMBINE[name](tests)

    def _expression(self, where: _Path, node: Any, inside: bool) -> Predicate | None:
        """`inside`: it looks into the elements of a list."""
        if self._too_deep or len(where) > 2 * _MAX_DEPTH:
            if not self._too_deep:
                self._too_deep = True
                self._refuse(where, f"more than {_MAX_DEPTH} expressions in one another", "write it in a Python module")
            return None
        if not isinstance(node, dict):
            self._refuse(where, f"{_shown(node)} is no expression", "give KeyPath, Condition and Value")
            return None
        unknown = [key for key in node if key not in _EXPRESSION_KEYS]
        for key in unknown:
            self._refuse((*where, key), f"unknown key {key!r}", _near(key, _EXPRESSION_KEYS, "remove it"))
        if unknown:
            return None
        combinators = [name for name in _COMBINATORS if name in node]
        if not combinators:
            return self._condition(where, node, inside)
        name = combinators[0]
        if len(node) > 1:
            others = ", ".join(key for key in node if key != name)
            self._refuse(where, f"{name} stands beside {others}", "make each an expression of its own")
            return None
        if self._in_filter and name not in ("All", "Any"):
            self._refuse((*where, name), f"InlineFilters do not know {name}", "use All or Any, and inverse conditions")
            return None
        return self._combined((*where, name), name, node[name], inside=inside)

    def _condition(self, where: _Path, node: dict[str, Any], inside: bool) -> Predicate | None:
        name = node.get("Condition")
        if "Condition" not in node:
            self._refuse(where, "Condition is missing", "add one, such as Condition: Equals")
            return None
        if not isinstance(name, str) or name not in _CONDITIONS:
            denies = "not" in str(name).casefold()  # to suggest the contrary would be worse than nothing
            alike = [each for each in _CONDITIONS if ("Not" in each) is denies]
            remedy = _near(name, alike, "use one of the format's conditions, such as Equals or Contains")
            self._refuse((*where, "Condition"), f"unknown condition {_shown(name)}", remedy)
            return None
        keys = [key for key in _KEYS if key in node]
        if self._in_filter and (not keys or name in _QUANTIFIERS):
            what = "conditions without a key" if not keys else f"the condition {name}"
            self._refuse(where, f"InlineFilters do not know {what}", "compare one KeyPath with a constant")
            return None
        if not self._fits(where, node, name, keys):
            return None
        if name in _ABSOLUTES:
            return _always if _ABSOLUTES[name] else _never
        if not keys:
            return self._two_keys(where, node, COMPARISONS[name], inside)
        get = self._key(where, {keys[0]: node[keys[0]]}, inside)
        if name in _QUANTIFIERS:
            test = self._combined((*where, "Expressions"), "All", node["Expressions"], inside=True)
            return None if get is None or test is None else _elements(get, name, test)
        if name in PRESENCE:
            return None if get is None else _of_value(get, PRESENCE[name], PRESENCE[name](ABSENT))
        if name in ADDRESS:
            return None if get is None else _of_value(get, ADDRESS[name], self._in_filter)
        return self._comparison(where, node, name, get)

    def _fits(self, where: _Path, node: dict[str, Any], name: str, keys: list[str]) -> bool:
        """Whether an expression has as many keys as its condition asks for, and its operand."""
        comparison = COMPARISONS.get(name)
        wanted = "Expressions" if name in _QUANTIFIERS else None
        if comparison is not None:
            wanted = "Values" if comparison.of_many or not keys else "Value"
        fits = True
        if name in _ABSOLUTES and keys:
            self._refuse((*where, keys[0]), f"{name} takes no key", "remove it")
            fits = False
        elif len(keys) > 1:
            self._refuse((*where, keys[1]), f"{keys[0]} and {keys[1]} in one expression", "name one key")
            fits = False
        elif not keys and name not in _ABSOLUTES and (comparison is None or comparison.of_many or "Value" in node):
            self._refuse(where, f"{name} has no key", "add KeyPath: the field to look at")
            return False
        for operand in ("Value", "Values", "Expressions"):
            if operand in node and operand != wanted:
                remedy = f"give {wanted}" if wanted and wanted not in node else "remove it"
                if operand == "Values" and wanted == "Value":
                    remedy = "give one Value; several are for IsIn and IsNotIn"
                self._refuse((*where, operand), f"{name} takes no {operand}", remedy)
                fits = False
        if fits and wanted is not None and wanted not in node:
            self._refuse(where, f"{wanted} is missing", f"add {wanted} beside Condition: {name}")
            fits = False
        return fits

    def _comparison(self, where: _Path, node: dict[str, Any], name: str, get: _Get | None) -> Predicate | None:
        comparison = COMPARISONS[name]
        which = "Values" if comparison.of_many else "Value"
        constant = node[which]
        operand = comparison.prepare(constant) if comparison.of_many or is_scalar(constant) else UNFIT
        if operand is UNFIT:
            self._refuse((*where, which), f"{name} compares with {comparison.operand}, not {_shown(constant)}",
                         "use IsNull" if constant is None else f"give {comparison.operand}")  # fmt: skip
            return None
        return None if get is None else _compared(get, comparison, operand, comparison.inverse or self._in_filter)

    def _two_keys(self, where: _Path, node: dict[str, Any], comparison: Comparison, inside: bool) -> Predicate | None:
        specs = node["Values"]
        if not isinstance(specs, list) or len(specs) != 2:
            self._refuse((*where, "Values"), f"Values holds {_shown(specs)}", "without a key, give two: [{Key}, {Key}]")
            return None
        get, other = (self._key((*where, "Values", number), spec, inside) for number, spec in enumerate(specs))
        return None if get is None or other is None else _compared_with_each_other(get, other, comparison)

    # --- keys

    def _key(self, where: _Path, node: Any, inside: bool = False) -> _Get | None:
        if not isinstance(node, dict) or len(node) != 1 or next(iter(node)) not in _KEYS:
            self._refuse(where, f"{_shown(node)} names no field", "give KeyPath: the field's path")
            return None
        ((kind, value),) = node.items()
        here = (*where, kind)
        if self._in_filter and kind in ("Key", "DeepKey"):
            self._refuse(here, f"InlineFilters do not know {kind}", "write it as KeyPath")
            return None
        match kind:
            case "Key":
                if isinstance(value, str) and value:
                    return _getter((value,))
                self._refuse(here, f"Key holds {_shown(value)}", "give the name of a field")
            case "DeepKey":
                if _is_deep_key(value):
                    return _getter(value)
                self._refuse(
                    here, f"DeepKey holds {_shown(value)}", "give a list of names, and of numbers after the first"
                )
            case "KeyPath":
                return self._path(here, value)
            case _:
                return self._enrichment(here, value, inside)
        return None

    def _path(self, where: _Path, value: Any) -> _Get | None:
        steps = _steps_of(value) if isinstance(value, str) else None
        if steps is None:
            self._refuse(
                where, f"{_shown(value)} is no path", "write names joined by dots, with [number] or [*] for lists"
            )
            return None
        return _getter(steps)

    def _enrichment(self, where: _Path, node: Any, inside: bool) -> _Get | None:
        if inside:
            self._refuse(where, "an element has no enrichment", "look at Enrichment outside of Expressions")
            return None
        if not self._mapping(where, node, ("Table", "Selector", "FieldPath")):
            return None
        for name in ("Table", "Selector"):
            if not isinstance(node[name], str) or not node[name]:
                self._refuse((*where, name), f"{name} holds {_shown(node[name])}", "give a text")
                return None
        if self._path((*where, "FieldPath"), node["FieldPath"]) is None:
            return None
        steps = _steps_of(node["FieldPath"]) or ()
        return _getter(("p_enrichment", node["Table"], node["Selector"], *steps))

    # --- shapes

    def _list(self, where: _Path, node: Any) -> list[Any]:
        if isinstance(node, list):
            return node
        self._refuse(where, f"{where[-1]} holds {_shown(node)}", "give a list")
        return []

    def _mapping(self, where: _Path, node: Any, keys: Sequence[str]) -> bool:
        """Whether a node has these keys, all of them and no others."""
        if not isinstance(node, dict):
            self._refuse(where, f"{_shown(node)} is no mapping", f"give {' and '.join(keys)}")
            return False
        for key in keys:
            if key not in node:
                self._refuse(where, f"{key} is missing", f"add {key}")
        unknown = [key for key in node if key not in keys]
        for key in unknown:
            self._refuse((*where, key), f"unknown key {key!r}", _near(key, keys, "remove it"))
        return not unknown and len(node) == len(keys)


def _is_deep_key(value: Any) -> bool:
    return (
        isinstance(value, list)
        and value != []
        and all(isinstance(step, str | int) and not isinstance(step, bool) for step in value)
        and isinstance(value[0], str)
        and "" not in value
    )


def _nothing(value: Any) -> bool:
    return value is None or value is ABSENT


def _near(name: Any, known: Sequence[str], otherwise: str) -> str:
    """What to write instead of a misspelled name."""
    folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(str(name).casefold(), folded, 1)
    return f"write {folded[near[0]]}" if near else otherwise


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."

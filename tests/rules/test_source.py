"""What is told from code objects is never told wrongly: where they are not sure, they say so."""

from __future__ import annotations

import pytest

from rules.source import Source, tells_apart


def source(text: str) -> Source:
    return Source("m.py", text.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "return 'a' in A",
        "return 'a' not in A and event in A",
        "return [x for x in event if x in A]",
        "return (lambda x: x in A)(event)",
        "return event.A in A",
        "return 1 in (event or A)",
    ],
)
def test_a_name_that_is_only_looked_into_is_seen_as_such(statement: str) -> None:
    assert source(f"A = []\ndef f(event):\n    {statement}\n").only_looks_into("A")


@pytest.mark.parametrize(
    "statement",
    [
        "A.append(1)",
        "return A",
        "return A in event",
        "return 1 in A and A",
        "del A[0]",
        "return 1 in A + A",
        "return 1 in g(A)",
        "return [x for x in A]",
        "return 1 in (A if event else [])",
        "class C:\n        B = A",
        "return lambda x=A: x",
    ],
)
def test_any_other_use_is_seen_too(statement: str) -> None:
    assert not source(f"A = []\ndef f(event):\n    {statement}\n").only_looks_into("A")


@pytest.mark.parametrize(
    "inside",
    [
        "global A; A = 1",
        "global A; del A",
        "global A\n    import A",
        "f.a = 1",
        "f.a += 1",
        "del f.a",
        "for f.a in x: pass",
        "setattr(f, 'a', 1)",
        "vars(f)['a'] = 1",
        "globals()['A'] = 1",
        "f.__dict__['a'] = 1",
        "n = 0\n    def g():\n        nonlocal n\n        n = 1",
    ],
)
def test_what_may_set_something_is_not_said_to_set_nothing(inside: str) -> None:
    assert not source(f"A = 0\ndef f(x):\n    {inside}\n").sets_nothing


@pytest.mark.parametrize("text", ["A = 0\nA += 1\n", "def f(x):\n    y = x\n    return y\n", "import a\na.b = 1\n"])
def test_what_only_loading_sets_is_nothing_that_functions_set(text: str) -> None:
    assert source(text).sets_nothing


def test_imports_are_found_wherever_they_stand() -> None:
    text = "import a.b\ndef f():\n    from c import d\n    class G:\n        import e as h\n"
    many = "".join(f"import m{number}\n" for number in range(300))  # arguments of more than one byte

    assert source(text).imports == {"a", "c", "e"}
    assert source(text).imports_of_functions == {"c", "e"}
    assert source(many).imports == {f"m{number}" for number in range(300)}


@pytest.mark.parametrize(
    "text", ["__import__('a')", "import importlib", "def f(): exec('import a')", "eval('1')", "__builtins__['x']"]
)
def test_imports_that_cannot_be_read_off_are_noticed(text: str) -> None:
    assert source(text).imports_dynamically
    assert not source("import a\ndef f(): return a.b\n").imports_dynamically


def test_a_future_statement_of_ours_is_none_of_theirs() -> None:
    namespace: dict[str, object] = {}
    exec(source("def f(x: int): pass\nfound = f.__annotations__['x']\n").code, namespace)

    assert namespace["found"] is int


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from panther_core import PantherEvent\ndef rule(event: PantherEvent) -> bool: return True", False),
        ("import panther_core\ndef rule(event: panther_core.PantherEvent): return True", False),
        ("__all__ = ['PantherEvent']", False),
        ("def rule(event):\n    'takes a PantherEvent'\n    return True  # of a PantherEvent", False),
        ("def rule(event): return isinstance(event, (dict, PantherEvent))", False),
        ("event: PantherEvent = None", False),
        ("def rule(event): return type(event) is PantherEvent", True),
        ("def rule(event): return event.__class__ == panther_core.PantherEvent", True),
        ("def rule(event): return type(event).__name__ == 'PantherEvent'", True),
        ("def rule(event): return f'{PantherEvent}' in kinds", True),
        ("from panther_core import PantherEvent as Event", True),
        ("def rule(event):\n    match event:\n        case PantherEvent(): return True", True),
        ("def rule(event: PantherEvent = PantherEvent): return True", True),
        ("PantherEvent(", False),
        ("def rule(event): return type(event) is Event", False),
    ],
)
def test_a_file_tells_a_class_from_its_heirs(code: str, expected: bool) -> None:
    assert tells_apart(code.encode(), "PantherEvent") is expected

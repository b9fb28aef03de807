"""What the analysis reads off rules: keys as patterns, followed through the code, and who reads and writes them."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest

from rules.lints.analysis import Access, Analysis, Edge
from rules.lints.patterns import Pattern
from rules.lints.sources import read_sources
from rules.lints.values import Clock, Constant, Value
from tests.rules.making import spec

HELPERS = (
    "from panther_detection_helpers.caching import (\n"
    "    get_counter, increment_counter, reset_counter, set_key_expiration, get_string_set, put_string_set,\n"
    "    add_to_string_set, remove_from_string_set, get_dictionary, put_dictionary, evaluate_threshold, check_account_age)\n"
)


def helper(name: str, source: str) -> dict[str, bytes]:
    """A global of a pack."""
    return {
        f"{name}.yml": f"AnalysisType: global\nGlobalID: {name}\nFilename: {name}.py\n".encode(),
        f"{name}.py": dedent(source).encode(),
    }


def analysis_of(source: str, more: dict[str, bytes] | None = None) -> Analysis:
    """Of a pack with one rule, Some.Rule."""
    files = {"some_rule.yml": spec(), "some_rule.py": (HELPERS + dedent(source)).encode(), **(more or {})}
    return Analysis(read_sources(files))


def accesses_of(source: str, more: dict[str, bytes] | None = None) -> list[Access]:
    return analysis_of(source, more).accesses["Some.Rule"]


def keys_of(body: str, around: str = "", more: dict[str, bytes] | None = None) -> list[str]:
    """The key of get_counter(key) at the end of a rule() with this body, all alternatives of it."""
    source = f"{dedent(around)}\ndef rule(event):\n{indent(dedent(body), '    ')}\n    return get_counter(key) > 1\n"
    (access,) = accesses_of(source, more)
    return [str(pattern) for pattern in access.keys]


# --- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("key = 'plain'", "plain"),
        ("key = f'a:{event.get(\"user\")}:b'", "a:{user}:b"),
        ("key = 'a:' + event.deep_get('user', 'name', default='') + ':b'", "a:{user.name}:b"),
        ("key = 'a:' + str(event['user'])", "a:{user}"),
        ("key = '-'.join(['a', event.get('x'), event.udm('y')])", "a-{x}-{y}"),
        ("key = 'a:{}:{}'.format(event.get('x'), 'b')", "a:{x}:b"),
        ("key = 'a:%s' % event.get('x')", "a:{x}"),
        ("key = 'a:%s:%s' % (event.get('x'), event.get('y'))", "a:{x}:{y}"),
        ("key = f'{__name__}:{event.get(\"x\")}'", "Some.Rule:{x}"),
        ("key = event.get('x').lower().strip()", "{x}"),
        ("key = event.get('x', {}).get('y')", "{x.y}"),
        ('key = f\'a:{event.get("x")["y"]}\'', "a:{x.y}"),
        ("key = 'a'\nkey += event.get('x')", "a{x}"),
        ("user = event.get('x')\nkey = f'a:{user}'", "a:{x}"),
        ("a, b = 'p', event.get('x')\nkey = f'{a}:{b}'", "p:{x}"),
        ("if (user := event.get('x')):\n    pass\nkey = f'a:{user}'", "a:{x}"),
        ("key = f'a:{event.event_time_epoch()}'", "a:{time}"),
        ("key = f'a:{{{event.get(\"x\")}}}:b'", "a:{{x}}:b"),
    ],
)
def test_a_key_is_followed_through_expressions(body: str, key: str) -> None:
    assert keys_of(body) == [key]


@pytest.mark.parametrize(
    "body",
    [
        "key = other(event)",
        "key = [f for f in event.get('x')][0]",
        "key, rest = other(event)",
        "with other(event) as key: pass",
        "key = '-'.join(event.get('x'))",
        "key = '{x}'.format(x=1)",
        "key = event.whatever()",
        "import hashlib\nkey = hashlib.sha256(event.get('x')).hexdigest()",
    ],
)
def test_what_cannot_be_followed_is_a_hole_that_could_be_anything(body: str) -> None:
    (access,) = accesses_of(f"def rule(event):\n{indent(body, '    ')}\n    return get_counter(key) > 1\n")
    assert [pattern.is_known for pattern in access.keys] == [False]


def test_the_last_assignment_on_every_way_is_what_counts() -> None:
    assert keys_of("key = event.get('x')\nkey = f'a:{key}'") == ["a:{x}"]
    assert keys_of("key = 'a'\nif event.get('x'):\n    key = 'b'") == ["a", "b"]
    assert keys_of("key = 'a'\ntry:\n    key = 'b'\nexcept ValueError:\n    key = 'c'") == ["a", "b", "c"]


def test_alternatives_are_kept_apart_and_stand_ins_for_missing_values_left_out() -> None:
    assert keys_of('key = f\'a:{event.get("x") or event.get("y")}\'') == ["a:{x}", "a:{y}"]
    assert keys_of('key = f\'a:{event.get("x") or "<UNKNOWN>"}\'') == ["a:{x}"]
    assert keys_of("key = 'a' if event.get('x') else 'b'") == ["a", "b"]
    assert keys_of("key = None\nif event.get('x'):\n    key = 'b'") == ["b"]


def test_many_alternatives_are_one_unknown() -> None:
    assigned = "\n".join(f"if event.get('{n}'): key = f'k{n}'" for n in range(20))
    assert keys_of(assigned) == ["{...}"]


def test_keys_are_followed_through_constants_and_functions_of_the_module() -> None:
    around = """
        PREFIX = "pre"
        def user_of(event):
            return event.get("user")
        def key_of(event, what, end=PREFIX):
            if not what:
                return None
            return f"{PREFIX}:{user_of(event)}:{what}:{end}"
        """
    assert keys_of("key = key_of(event, 'logins')", around) == ["pre:{user}:logins:pre"]
    assert keys_of("key = key_of(event, end='x', what=event.get('y'))", around) == ["pre:{user}:{y}:x"]


def test_keys_are_followed_through_a_parameter_that_is_rebound_on_some_ways_only() -> None:
    around = """
        def key_of(event, user):
            if not user:
                user = event.get("other")
            return "a:" + user
        """
    assert keys_of("key = key_of(event, event.get('user'))", around) == ["a:{other}", "a:{user}"]


def test_keys_are_followed_through_globals_that_rule_sets_for_other_functions() -> None:
    (access,) = accesses_of("""
        KEY = ""
        def rule(event):
            global KEY
            KEY = f"a:{event.get('x')}"
            return True
        def title(event):
            return str(get_counter(KEY))
        """)
    assert [str(pattern) for pattern in access.keys] == ["a:{x}"]


def test_keys_are_followed_into_helpers_of_the_pack_whose_name_is_their_own() -> None:
    more = helper("shared_keys", """
        PREFIX = "shared"
        def key_of(event):
            return f"{__name__}:{PREFIX}:{event.get('user')}"
        """) | helper("front", "from shared_keys import key_of, PREFIX\n")  # fmt: skip

    for around in ("from shared_keys import key_of", "from front import key_of", "from shared_keys import *"):
        assert keys_of("key = key_of(event)", around, more) == ["shared_keys:shared:{user}"]
    assert keys_of("key = front.PREFIX + event.get('x')", "import front", more) == ["shared{x}"]
    assert keys_of("key = PREFIX", "from front import PREFIX", more) == ["shared"]


def test_recursion_ends() -> None:
    assert keys_of("key = loop(event)", "def loop(event):\n    return 'a' + loop(event)") == ["a{...}"]
    assert keys_of("key = 'a'\nwhile event.get('x'):\n    key = key + 'b'")[0] == "a"


def test_helpers_that_call_each_other_over_and_over_do_not_take_for_ever() -> None:
    levels = [f"def f{n}(event):\n    return {' + '.join([f'f{n + 1}(event)'] * 6)}\n" for n in range(11)]
    around = "".join(levels) + "def f11(event):\n    return str(get_counter('deep'))\n"
    found = accesses_of(f"{around}def rule(event):\n    return get_counter('a' + f0(event)) > 1\n")
    assert "a{...}" in {access.keys[0].skeleton for access in found}


# --- accesses ----------------------------------------------------------------------------------------------------


def test_an_access_is_found_wherever_an_evaluation_reaches_it() -> None:
    found = accesses_of(
        """
        import panther_detection_helpers.caching as cache
        from counting import count
        def deeper(event):
            return cache.get_counter("deeper")
        def rule(event):
            return deeper(event) > 1 and count(event)
        def title(event):
            return str(sorted(get_string_set("title")))
        class Store:
            def keep(self):
                put_string_set("method", [], 60)
        def unused():
            increment_counter("unused")
        """,
        helper(
            "counting", "import panther_oss_helpers as p\ndef count(event):\n    return p.increment_counter('helper')\n"
        ),
    )
    assert [(access.helper, str(access.keys[0])) for access in found] == [
        ("get_counter", "deeper"), ("increment_counter", "helper"), ("get_string_set", "title"),
        ("put_string_set", "method"), ("increment_counter", "unused"),
    ]  # fmt: skip
    assert found[1].place == ("counting.py", 3, 12)


def test_a_function_of_the_rule_s_own_is_no_helper_whatever_its_name() -> None:
    files = {
        "some_rule.yml": spec(),
        "some_rule.py": b"def get_counter(k): pass\ndef rule(event): return get_counter('x')\n",
    }
    assert Analysis(read_sources(files)).accesses == {}


def test_what_a_helper_returns_is_read_only_where_it_is_used() -> None:
    found = accesses_of("""
        def rule(event):
            increment_counter("a")
            add_to_string_set("b", "x")
            get_counter("c")
            put_dictionary("d", {})
            evaluate_threshold("e")
            return increment_counter("f") > len(add_to_string_set("g", "x"))
        """)
    kinds = {str(access.keys[0]): "r" * access.reads + "w" * access.writes for access in found}
    assert kinds == {"a": "w", "b": "w", "c": "r", "d": "w", "e": "rw", "f": "rw", "g": "rw"}


def test_the_column_counts_characters_not_bytes() -> None:
    (access,) = accesses_of('def rule(event): "äöü"; return get_counter("a") > 1\n')
    assert access.place[1:] == (HELPERS.count("\n") + 1, 32)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("event.event_time_epoch() + DAY", Clock(86400)),
        ("int(event.event_time_epoch()) + 60", Clock(60)),
        ("event.event_time_epoch()", Clock(0)),
        ("event.event_time_epoch() + event.get('ttl')", Clock(None)),
        ("time.time() - 5", Clock(-5)),
        ("2 * DAY", Constant(172800)),
        ("-DAY // 2", Constant(-43200)),
        ("None", Constant(None)),
    ],
)
def test_an_expiry_is_calculated_as_far_as_it_is_constant(expression: str, value: Value) -> None:
    (access,) = accesses_of(
        f"import time\nDAY = 24 * 3600\ndef rule(event):\n    increment_counter('a', 1, {expression})\n    return False\n"
    )
    assert access.expiry == (value,)


# --- what excludes what -------------------------------------------------------------------------------------------


def excluded(source: str) -> bool:
    one, two = accesses_of(source)
    assert one.excludes(two) == two.excludes(one)
    return one.excludes(two)


def test_arms_of_a_branch_exclude_each_other() -> None:
    assert excluded(
        "def rule(event):\n  if event.get('x'):\n    get_counter('a')\n  else:\n    get_counter('b')\n  return True"
    )
    assert excluded("def rule(event):\n  return get_counter('a') if event.get('x') else get_counter('b')")
    assert excluded(
        "def rule(event):\n  match event.get('x'):\n    case 1: get_counter('a')\n    case _: get_counter('b')\n  return True"
    )
    assert not excluded("def rule(event):\n  if get_counter('a'):\n    get_counter('b')\n  return True")
    assert not excluded(
        "def rule(event):\n  if event.get('x'):\n    get_counter('a')\n  get_counter('b')\n  return True"
    )


def test_what_follows_an_arm_that_ends_the_function_excludes_it() -> None:
    assert excluded(
        "def rule(event):\n  if event.get('x'):\n    get_counter('a')\n    return True\n  get_counter('b')\n  return True"
    )


def test_what_ends_in_no_match_excludes_the_other_functions() -> None:
    title = "\ndef title(event):\n  return str(get_counter('b'))\n"
    assert excluded(
        "def rule(event):\n  if event.get('x'):\n    get_counter('a')\n    return False\n  return True" + title
    )
    assert excluded("def rule(event):\n  get_counter('a')\n  return False" + title)
    assert not excluded("def rule(event):\n  return get_counter('a') > 1" + title)
    assert not excluded(
        "def rule(event):\n  get_counter('a')\n  if event.get('x'):\n    return True\n  return False" + title
    )


def test_two_calls_of_one_function_do_not_exclude_each_other() -> None:
    source = """
        def count(event, key, up):
            if up:
                increment_counter(key)
            else:
                get_counter(key)
        def rule(event):
            count(event, "a", True)
            count(event, "b", False)
            return True
        """
    first, _, _, last = accesses_of(source)
    assert not first.excludes(last)


# --- the graph -----------------------------------------------------------------------------------------------------


def graph_of(**rules: str) -> list[Edge]:
    """Of a pack with these rules, each the body of a rule()."""
    files = {}
    for name, body in rules.items():
        files[f"{name}.yml"] = spec(name, f"{name}.py")
        files[f"{name}.py"] = f"{HELPERS}def rule(event):\n{indent(dedent(body), '    ')}\n    return True\n".encode()
    return list(Analysis(read_sources(files)).edges)


def test_the_graph_leads_from_the_writer_over_the_key_to_the_reader() -> None:
    assert graph_of(
        writer="put_string_set('new:' + event.get('user'), ['x'], 60)",
        reader="check_account_age(f'new:{event.get(\"name\")}')",
        other="check_account_age(f'old:{event.get(\"name\")}')",
    ) == [Edge("writer", "new:{...}", "reader")]


def test_rules_that_both_read_and_write_a_key_with_a_name_lead_to_each_other() -> None:
    body = "x = increment_counter('shared:' + event.get('user'))"
    assert graph_of(a=body, b=body) == [Edge("a", "shared:{...}", "b"), Edge("b", "shared:{...}", "a")]


def test_a_key_without_a_name_leads_only_from_who_only_writes_to_who_only_reads() -> None:
    key = "event.get('a') + '-' + event.get('b')"
    assert graph_of(
        marker=f"put_string_set({key}, ['x'], 60)",
        asker=f"check_account_age({key})",
        own=f"if not get_string_set({key}): put_string_set({key}, ['x'], 60)",
    ) == [Edge("marker", "{...}-{...}", "asker")]


def test_keys_of_which_nothing_is_known_lead_nowhere() -> None:
    assert graph_of(a="increment_counter(other(event))", b="get_counter(other(event))") == []


def test_a_pack_with_broken_files_is_analysed_as_far_as_it_can_be_read() -> None:
    analysis = analysis_of(
        "def rule(event): return get_counter('a') > 1\n",
        {
            "b.yml": spec("B", "b.py"),
            "b.py": b"def rule(:\n",
            "c.yml": b"a: [",
            "d.yml": b"- 1",
            "e.yml": spec("E", "e.py"),
        },
    )
    assert list(analysis.accesses) == ["Some.Rule"]


def test_a_derived_rule_has_the_module_of_its_base_under_its_own_id() -> None:
    derived = b"AnalysisType: rule\nRuleID: Derived\nBaseDetection: Some.Rule\nEnabled: true\nSeverity: High\n"
    accesses = analysis_of("def rule(event): return get_counter(__name__) > 1\n", {"d.yml": derived}).accesses
    assert {rule_id: str(found[0].keys[0]) for rule_id, found in accesses.items()} == {
        "Some.Rule": "Some.Rule", "Derived": "Derived",
    }  # fmt: skip


def test_patterns_are_hashable_and_compare_by_content() -> None:
    assert len({Pattern(("a",)), Pattern(("a",))}) == 1

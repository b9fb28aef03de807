"""`countersign check` says everything that is wrong with a pack, with its place, and fails for errors only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.checking import check_pack
from tests.commands import PACKS, countersign
from tests.rules.making import spec

RULE = "def rule(event):\n    return event.get('x') == 'y'\n"
COUNTING = (
    "from panther_detection_helpers.caching import increment_counter\n"
    "def rule(event):\n    return increment_counter(event.get('user')) > 3\n"
)


def pack(directory: Path, **files: str | bytes) -> Path:
    """A directory with these files; `_` in a name stands for its dot."""
    for name, text in files.items():
        path = directory / ".".join(name.rsplit("_", 1))
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return directory


def checked(directory: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit code, and the lines that were printed, without the directory."""
    code = check_pack(directory)
    return code, capsys.readouterr().out.replace(f"{directory}/", "").splitlines()


def test_the_shipped_rules_are_clean() -> None:
    done = countersign("check", PACKS)

    assert done.code == 0
    assert done.stdout.splitlines()[-1] == "0 errors, 0 warnings in 23 rules"


def test_every_error_of_every_file_has_its_line_and_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = pack(
        tmp_path,
        a_yml=spec("A", "a.py", more="Severty: High\nTests:\n  - Name: one\n"), a_py=RULE,
        b_yml=spec("B", "b.py"), b_py="def rule(event):\n    return (1 +\n",
        c_yml="AnalysisType: [\n",
        d_yml=spec("D", "d.py"), d_py="if True:\n    raise ValueError('no')\n",
    )  # fmt: skip
    code, lines = checked(directory, capsys)

    assert code == 1
    assert [line for line in lines if ": error: " in line] == [
        "a.yml:7:1: error: unknown key 'Severty': write Severity",
        "a.yml:9:5: error: ExpectedResult is missing: add ExpectedResult: true or false",
        "a.yml:9:5: error: Log or Logs is missing: give one of them",
        "b.py:2:12: error: no Python: '(' was never closed: mend the syntax",
        "c.yml:2:1: error: no YAML: did not find expected node content: mend the YAML",
        "d.py:2:5: error: loading raises ValueError: no: mend the module",
    ]
    assert lines[-1].startswith("6 errors, 0 warnings")


def test_a_log_type_that_cannot_be_read_is_an_error_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = pack(tmp_path, a_yml=spec("A", "a.py"), a_py=RULE, t_yml="LogType: Mine\nTimestam: x\n")
    code, lines = checked(directory, capsys)

    assert code == 1
    assert lines[0].startswith("t.yml:")


def test_warnings_alone_are_no_failure_and_say_why_and_how_to_silence_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = checked(pack(tmp_path, a_yml=spec("A", "a.py"), a_py=COUNTING), capsys)

    assert code == 0
    assert [line.split(": ")[:2] for line in lines[:2]] == [["a.py:3:12", "key-prefix"], ["a.py:3:12", "no-expiry"]]
    why = lines.index("Why:")
    assert lines[why - 1] == ""
    assert [line.split()[0] for line in lines[why + 1 : why + 3]] == ["key-prefix", "no-expiry"]
    assert lines[why + 3].endswith("# countersign: ignore[key-prefix] reason")
    assert lines[-1] == "0 errors, 2 warnings, 1 note in 1 rule"


def test_what_is_silenced_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = COUNTING.replace("> 3", "> 3  # countersign: ignore[key-prefix, no-expiry] a test")
    code, lines = checked(pack(tmp_path, a_yml=spec("A", "a.py"), a_py=silent), capsys)

    assert (code, lines[-1]) == (0, "0 errors, 0 warnings (2 silenced), 1 note in 1 rule")


def test_errors_do_not_hide_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = pack(tmp_path, a_yml=spec("A", "a.py"), a_py=COUNTING, b_yml=spec("B", "b.py"), b_py="def (")
    code, lines = checked(directory, capsys)

    assert code == 1
    assert [line.split(": ")[1] for line in lines[:3]] == ["key-prefix", "no-expiry", "error"]


def test_keys_that_rules_share_are_listed_as_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    helpers = "from panther_detection_helpers.caching import check_account_age, put_string_set\n"
    directory = pack(
        tmp_path,
        w_yml=spec("Writer", "w.py"),
        w_py=helpers + "def rule(event):\n  put_string_set(f'new:{event.get(\"id\")}', ['x'], 60)\n  return False\n",
        r_yml=spec("Reader", "r.py"),
        r_py=helpers + "def rule(event):\n  return check_account_age('new:' + event.get('user'))\n",
    )
    code, lines = checked(directory, capsys)

    assert code == 0
    assert lines[:2] == ["Keys that one rule writes and another reads:", "  Writer -> new:{...} -> Reader"]


def test_rules_without_a_guard_are_noted_with_the_reason_and_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changing = (
        "SEEN = []\ndef rule(event):\n    SEEN.append(1)  # countersign: ignore[global-kept] a test\n    return True\n"
    )
    directory = pack(
        tmp_path,
        a_yml=spec("A", "a.py"), a_py=RULE,
        b_yml=spec("B", "b.py"), b_py="def rule(event):\n    return bool(event)\n",
        c_yml=spec("C", "c.py"), c_py=changing,
    )  # fmt: skip
    code, lines = checked(directory, capsys)

    remedy = "before it has compared a field with constants: compare a field with a constant first"
    assert [line for line in lines if ": no-guard: " in line] == [
        f"  b.py:2:1: no-guard: B has no guard: it returns True {remedy}",
        f"  c.py:4:1: no-guard: C has no guard: it returns True {remedy}",
    ]
    assert lines[-2:] == [
        "Guards: 1 rule looked up by the value of a field; 2 rules evaluated on each event of their log types",
        "0 errors, 0 warnings (1 silenced), 2 notes in 3 rules",
    ]
    assert code == 0


def test_rules_whose_guard_names_no_text_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flagged = "def rule(event):\n    return event.get('readOnly') is True and event.get('count') == 3\n"
    directory = pack(tmp_path, a_yml=spec("A", "a.py"), a_py=RULE, b_yml=spec("B", "b.py"), b_py=flagged)

    code, lines = checked(directory, capsys)

    assert lines[-3:-1] == [
        "Guards: 2 rules looked up by the value of a field",
        "Every line is parsed for B: nothing in the guard is a text to look for first",
    ]
    assert code == 0


def test_a_note_can_be_silenced_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = "def rule(event):\n    # countersign: ignore[no-guard] every event counts\n    return True\n"
    _, lines = checked(pack(tmp_path, a_yml=spec("A", "a.py"), a_py=silent), capsys)

    assert not any("no-guard" in line or "unused-ignore" in line for line in lines)


def test_what_rules_print_while_they_are_loaded_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines = checked(pack(tmp_path, a_yml=spec("A", "a.py"), a_py="print('loud')\n" + RULE), capsys)

    assert "loud" not in lines


def test_the_exit_code_tells_errors_from_warnings_and_from_a_missing_directory(tmp_path: Path) -> None:
    directory = pack(tmp_path, a_yml=spec("A", "a.py"), a_py=COUNTING)
    assert countersign("check", directory).code == 0

    (directory / "a.py").write_text("def (")
    assert countersign("check", directory).code == 1

    missing = countersign("check", directory / "absent")
    assert missing.code == 2
    assert "no such directory" in missing.stderr


def test_it_starts_light() -> None:
    """Nothing that takes long to import is needed to read rules."""
    heavy = (
        "import sys; import cluster.checking; print(sorted({'ray', 'redis', 'pyarrow', 'pandas'} & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"

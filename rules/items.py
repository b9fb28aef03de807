"""Items: the YAML files of a pack, each read and checked by itself, and then against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rules.errors import Problem, SourceLocation
from rules.schema import module_of
from rules.schema_shapes import Checker, Path
from rules.schema_tables import ID_KEYS, SHAPES
from rules.yaml12 import BadYaml, Lines, load

DERIVABLE = ("rule", "scheduled_rule")


@dataclass(slots=True)
class Item:
    """One YAML file with an AnalysisType. `document` is as its shape says where the item is sound."""

    kind: str
    path: str
    document: Mapping[str, Any]
    checker: Checker
    sound: bool
    """Nothing was refused."""
    file: str
    """The path of the file that it names; empty where it names none. A derived rule has its base's."""

    @property
    def id(self) -> str:
        """The text under the key that holds the id; empty where there is none."""
        found = self.document.get(ID_KEYS[self.kind])
        return found if isinstance(found, str) else ""

    def refuse(self, where: Path, message: str, remedy: str) -> None:
        """Report what is wrong at a place in the file. The item is sound no more."""
        self.sound = False
        self.checker.refuse(where, message, remedy)


class Reader:
    """Reads YAML files one by one and collects what they hold and what is wrong with them."""

    def __init__(self, files: Mapping[str, bytes], problems: list[Problem], *, ignore_extra_keys: bool) -> None:
        self._files = files
        self._problems = problems
        self._ignore_extra_keys = ignore_extra_keys
        self.items: list[Item] = []
        self.log_type_files: dict[str, bytes] = {}
        self._templates: list[str] = []
        self._unreadable: list[str] = []

    def _refuse(self, path: str, line: int | None, message: str, remedy: str) -> None:
        self._problems.append(Problem(SourceLocation(path, line), message, remedy))

    def notices(self) -> Iterator[str]:
        """What is left out, a line each."""
        yield from self._templates
        if self._unreadable:
            number = len(self._unreadable)
            yield f"{self._unreadable[0]}: no YAML and no AnalysisType: left out ({number} such file{'s'[: number > 1]} in all)"

    def read(self, path: str) -> None:
        """One YAML file."""
        try:
            document, lines = load(self._files[path])
        except BadYaml as error:
            data = self._files[path]
            if b"AnalysisType" in data or any(f"\n{key}:".encode() in b"\n" + data for key in ID_KEYS.values()):
                self._refuse(path, error.line, str(error), "mend the YAML")
            else:  # a template of another tool's, or several documents
                self._unreadable.append(path)
            return
        if not isinstance(document, dict):
            self._refuse(path, 1, "the file holds no mapping", "start it with AnalysisType: rule")
            return
        kind = document.get("AnalysisType")
        if kind is None:
            named = next((key for key in ID_KEYS.values() if key in document), None)
            if named is not None:
                message = f"a file with {named} and no AnalysisType"
                self._refuse(path, lines.of(named), message, "say what it is, as AnalysisType: rule")
            elif "LogType" in document and "Logs" not in document:  # with Logs it is a scenario to upload by hand
                self.log_type_files[path] = self._files[path]
        elif isinstance(kind, str) and kind in SHAPES:
            self._check(kind, path, document, lines)
        else:
            self._refuse(path, lines.of("AnalysisType"), f"AnalysisType is {kind!r}", "use one of the format's types")

    def _check(self, kind: str, path: str, document: Mapping[str, Any], lines: Lines) -> None:
        before = len(self._problems)
        checker = Checker(path, lines, self._problems, ignore_extra_keys=self._ignore_extra_keys)
        checker.check((), document, SHAPES[kind])
        file = module_of(path, document)
        if file and file not in self._files:
            if "templates" in path.split(
                "/"
            ):  # the public pack's are for copying: they name files that the author will write
                self._templates.append(f"{path}: a template, which names {file}: there is no such file, it is left out")
                return
            what = "table" if kind == "lookup_table" else "module"
            checker.refuse(("Filename",), f"there is no file {file}", f"put the {what} beside its YAML")
        self.items.append(Item(kind, path, document, checker, len(self._problems) == before, file))


def check_ids(items: Iterable[Item]) -> None:
    """Refuse what has the id of another, and what names an id that is not there."""
    first: dict[tuple[str, str], Item] = {}
    for item in items:
        if not item.id:
            continue
        key = ID_KEYS[item.kind]
        known = first.setdefault((_namespace(key), item.id), item)
        if known is not item:
            remedy = f"give each {item.kind.replace('_', ' ')} an id of its own"
            item.refuse((key,), f"{key} {item.id} is also in {known.path}", remedy)
    rules = {item.id for item in items if item.kind in DERIVABLE}
    for item in items:
        if item.kind in DERIVABLE and item.sound:
            _check_also_run(item, rules)


def _namespace(key: str) -> str:
    return "RuleID" if key == "PolicyID" else key  # both name detections, in alerts and in packs


def _check_also_run(item: Item, rules: set[str]) -> None:
    for number, test in enumerate(item.document.get("Tests", ())):
        for rule_id in test.get("AlsoRun", ()):
            if rule_id not in rules:
                where = ("Tests", number, "AlsoRun")
                item.refuse(where, f"the pack has no rule {rule_id}", "name a rule by its RuleID")


def check_models(items: Iterable[Item]) -> None:
    """Refuse a second enabled data model for a log type."""
    first: dict[str, Item] = {}
    for item in items:
        if item.kind == "datamodel" and item.sound and item.document["Enabled"]:
            for number, log_type in enumerate(item.document["LogTypes"]):
                known = first.setdefault(log_type, item)
                if known is not item:
                    message = f"{log_type} has an enabled data model in {known.path}, too"
                    item.refuse(("LogTypes", number), message, "disable one of them")


def with_base(item: Item, by_id: Callable[[str], Item | None]) -> Item | None:
    """A derived rule as it is with what it has of its base; any other as it stands. None where there is no such base."""
    base_id = item.document.get("BaseDetection")
    if base_id is None:
        return item
    base = by_id(base_id)
    where = ("BaseDetection",)
    if base is None:
        item.refuse(where, f"the pack has no rule {base_id}", "name a rule by its RuleID")
        return None
    if "BaseDetection" in base.document:
        item.refuse(where, f"{base_id} is derived itself", "name the rule that has a body")
        return None
    if base.kind != item.kind:
        item.refuse(where, f"{base_id} is a {base.kind}", f"derive a {item.kind} from a {item.kind}")
        return None
    if not base.sound:
        return None  # said of the base
    own = {key: value for key, value in item.document.items() if key != "BaseDetection"}
    return Item(item.kind, item.path, {**base.document, **own}, item.checker, item.sound, base.file)

"""Filters: which detections are meant, by what their YAML says."""

from __future__ import annotations

import pytest

from rules.filters import FILE, BadFilter, parse_filters
from rules.pack import Pack, load_pack
from tests.rules.making import spec

POLICY = b"""\
AnalysisType: policy
PolicyID: AWS.Bucket.Public
Enabled: false
Filename: policy.py
ResourceTypes: [AWS.S3.Bucket]
Severity: High
"""
MANIFEST = b"""\
AnalysisType: pack
PackID: PantherManaged.Okta
PackDefinition:
  IDs: [Okta.MFA, AWS.Bucket.Public]
"""
FILES = {
    "mfa.yml": spec("Okta.MFA", more="Tags: [Identity, Okta]\nThreshold: 5\nStatus: Experimental\n"),
    "off.yml": spec("Okta.Off", more="CreateAlert: false\nDisplayName: 'Off, and out'\n").replace(
        b"Enabled: true", b"Enabled: false"
    ),
    "derived.yml": b"AnalysisType: rule\nRuleID: Derived\nBaseDetection: Okta.MFA\nSeverity: Critical\nTags: [Mine]\n",
    "policy.yml": POLICY,
    "pack.yml": MANIFEST,
    "some_rule.py": b"def rule(event): return True\n",
    "policy.py": b"def policy(resource): return True\n",
}


def wanted(*texts: str) -> list[str]:
    pack = load_pack(FILES)
    chosen = parse_filters(texts)
    return [rule.id for rule in pack.everything if chosen.wants(rule, pack.packs)]


EVERYTHING = ["AWS.Bucket.Public", "Derived", "Okta.MFA", "Okta.Off"]


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        ([], EVERYTHING),
        (["RuleID=Okta.MFA"], ["Okta.MFA"]),
        (["RuleID=okta.mfa,OKTA.OFF"], ["Okta.MFA", "Okta.Off"]),
        (["RuleID!=Okta.MFA,Okta.Off"], ["AWS.Bucket.Public", "Derived"]),
        (["PolicyID=AWS.Bucket.Public"], ["AWS.Bucket.Public"]),
        (["AnalysisType=policy"], ["AWS.Bucket.Public"]),
        (["Severity=low"], ["Okta.MFA", "Okta.Off"]),
        (["Severity=Low,Critical", "Enabled=true"], ["Derived", "Okta.MFA"]),
        (["Enabled=False"], ["AWS.Bucket.Public", "Okta.Off"]),
        (["Enabled!=yes"], ["AWS.Bucket.Public", "Okta.Off"]),
        (["CreateAlert=true"], ["AWS.Bucket.Public", "Derived", "Okta.MFA"]),
        (["LogTypes=some.log"], ["Derived", "Okta.MFA", "Okta.Off"]),
        (["ResourceTypes=AWS.S3.Bucket"], ["AWS.Bucket.Public"]),
        (["Tags=okta"], ["Okta.MFA"]),
        (["Tags!=okta"], ["AWS.Bucket.Public", "Derived", "Okta.Off"]),
        (["Threshold=5"], ["Derived", "Okta.MFA"]),
        (["Status!=Experimental"], ["AWS.Bucket.Public", "Okta.Off"]),
        (["PackID=panthermanaged.okta"], ["AWS.Bucket.Public", "Okta.MFA"]),
        (["PackID!=PantherManaged.Okta"], ["Derived", "Okta.Off"]),
        (["PackID=PantherManaged.Okta", "Severity!=High"], ["Okta.MFA"]),
        (["RuleID=Nobody"], []),
    ],
)
def test_a_filter_wants_what_has_one_of_its_values_and_several_must_all_hold(texts: list[str], ids: list[str]) -> None:
    assert wanted(*texts) == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RuleID", "--filter RuleID: no filter: write KEY=VALUE or KEY!=VALUE"),
        ("RuleID=", "--filter RuleID=: no filter: write KEY=VALUE or KEY!=VALUE"),
        ("RuleID!=,", "--filter RuleID!=,: no filter: write KEY=VALUE or KEY!=VALUE"),
        ("ruleid=x", "--filter ruleid=x: 'ruleid' is no key of a detection: write RuleID"),
        ("LogType=x", "--filter LogType=x: 'LogType' is no key of a detection: write LogTypes"),
        ("Enabled=perhaps", "--filter Enabled=perhaps: Enabled is true or false, not perhaps: write Enabled=true"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(BadFilter) as refused:
        parse_filters([text])

    assert str(refused.value) == message


def test_a_key_that_resembles_none_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(BadFilter, match=r"'Xyzzy' is no key of a detection: use one of AnalysisType, .*Threshold"):
        parse_filters(["Xyzzy=1"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["RuleID=Okta.MFAA"], "no detection matches RuleID=Okta.MFAA: RuleID may be Okta.MFA"),
        (["Status=Gone"], "no detection matches Status=Gone: Status may be Stable"),
        (["Reports=x"], "no detection matches Reports=x: nothing has Reports"),
        (
            ["RuleID=A", "Status=Stable"],
            "no detection matches RuleID=A and Status=Stable: each filter matches some, but all together none",
        ),
    ],
)
def test_where_nothing_matches_it_is_said_what_is_near(texts: list[str], message: str) -> None:
    files = {
        "mfa.yml": b"RuleID: Okta.MFA",
        "a.yaml": b"RuleID: A",
        "status.yml": b"Status: Stable",
        "a.py": b"RuleID: x",
    }
    files |= {"no.yml": b"{", "list.yml": b"[]"}

    assert str(parse_filters(texts).refusal(files)) == message


def filtered(*texts: str) -> Pack:
    return load_pack({**FILES, FILE: "\n".join(texts).encode()})


def test_filters_among_a_pack_s_files_leave_the_rest_out_of_it() -> None:
    pack = filtered("PackID=PantherManaged.Okta", "AnalysisType=rule")

    assert [rule.id for rule in pack.everything] == ["Okta.MFA"]
    assert pack.digest != load_pack(FILES).digest


def test_a_module_that_is_not_wanted_is_not_executed() -> None:
    files = {**FILES, "policy.py": b"raise RuntimeError('executed')\n", FILE: b"RuleID=Okta.MFA"}

    assert [rule.id for rule in load_pack(files).everything] == ["Okta.MFA"]


def test_what_a_wanted_test_names_is_loaded_beside_the_pack() -> None:
    test = "Tests: [{Name: t, ExpectedResult: true, AlsoRun: [Okta.MFA], Log: {}}]\n"
    pack = load_pack({**FILES, "with.yml": spec("With", more=test), FILE: b"RuleID=With"})

    assert [rule.id for rule in pack.rules] == ["With"]
    assert [rule.id for rule in pack.companions] == ["Okta.MFA"]

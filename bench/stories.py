"""The attacks planted in the workload, and a few that only look like one: each a function of its start and a random source.

A story knows its events and the alerts of the shipped pack that they must raise, no more and no fewer. Its people,
keys and addresses are its own: what the ordinary traffic does cannot help or hide it. Attackers come from
203.0.113.0/24, everybody else in a story from 198.51.100.0/24 (both set apart for documentation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from bench.background import ACCOUNT, ARCHIVE_ACCOUNT, DAY_S, aws_id, time_text, uuid_text

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Expected:
    """Alerts of one rule with one dedup string."""

    rule_id: str
    dedup: str
    alerts: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a story. It arrives when it happens: a story is never out of order."""

    time_s: int
    log_type: str
    event: Event


@dataclass(frozen=True, slots=True)
class Story:
    """`steps` in order of time. `expected` is empty for a story that must not alert."""

    name: str
    start_s: int
    steps: tuple[Step, ...]
    expected: tuple[Expected, ...]


ATTACKER = "203.0.113.66"
HOME = "198.51.100.7"

# --- AWS CloudTrail -------------------------------------------------------------------------------------------------


def denied_everywhere(start_s: int, random: Random) -> Story:
    who = _user("mallory", random)
    names = ("ListUsers", "ListRoles", "GetAccountSummary", "ListAccessKeys", "GetAccountAuthorizationDetails")
    steps = [
        _aws(start_s + 40 * n, random, who, f"iam:{names[n % len(names)]}", error="AccessDenied", address=ATTACKER)
        for n in range(12)
    ]
    return _story("stolen key tries every door", steps, Expected("AWS.CloudTrail.AccessDenied.Burst", who["arn"]))


def denied_twice_over(start_s: int, random: Random) -> Story:
    who = _user("mallory-two", random)
    steps = [
        _aws(start_s + 170 * n, random, who, "kms:Decrypt", error="AccessDeniedException", address=ATTACKER)
        for n in range(40)
    ]
    return _story(
        "denials that go on for two hours",
        steps,
        # Every tenth denial matches; an alert takes the matches of an hour, so the fourth of them is the second alert.
        Expected("AWS.CloudTrail.AccessDenied.Burst", who["arn"], alerts=2),
    )


def denied_nine_times(start_s: int, random: Random) -> Story:
    who = _user("nearly-nick", random)
    steps = [
        _aws(start_s + 60 * n, random, who, "s3:GetObject", error="AccessDenied", parameters={"bucketName": "payroll"})
        for n in range(9)
    ]
    return _story("nine denials, one short", steps)


def role_from_elsewhere(start_s: int, random: Random) -> Story:
    who = _user("release-manager", random)
    role = f"arn:aws:iam::{ACCOUNT}:role/break-glass"

    def assumed(after_s: int, address: str) -> Step:
        parameters = {"roleArn": role, "roleSessionName": "release"}
        return _aws(start_s + after_s, random, who, "sts:AssumeRole", parameters=parameters, address=address)

    steps = [assumed(0, HOME), assumed(600, HOME), assumed(1200, ATTACKER), assumed(1500, ATTACKER)]
    return _story("role assumed from a new address", steps, Expected("AWS.CloudTrail.AssumeRole.NewIP", role))


def role_from_home(start_s: int, random: Random) -> Story:
    who = _user("commuter", random)
    role = f"arn:aws:iam::{ACCOUNT}:role/reporting"
    addresses = (HOME, HOME, "cloudformation.amazonaws.com", HOME)
    steps = [
        _aws(start_s + 300 * n, random, who, "sts:AssumeRole", parameters={"roleArn": role}, address=address)
        for n, address in enumerate(addresses)
    ]
    return _story("role assumed from home and by a service", steps)


def secrets_harvest(start_s: int, random: Random) -> Story:
    who = _role("web-server", "i-0123456789abcdef0", random)
    steps = [
        _aws(start_s + 20 * n, random, who, "secretsmanager:GetSecretValue", parameters={"secretId": f"prod/app-{n}"})
        for n in range(11)
    ]
    return _story("web server reads every secret", steps, Expected("AWS.CloudTrail.Secrets.Enumeration", who["arn"]))


def service_never_used(start_s: int, random: Random) -> Story:
    who = _role("nightly-backup", "backup", random, ARCHIVE_ACCOUNT)
    principal = who["sessionContext"]["sessionIssuer"]["arn"]

    def change(time_s: int, action: str) -> Step:
        return _aws(time_s, random, who, action, read_only=False)

    week_ago_s = start_s - 8 * DAY_S
    steps = [
        change(week_ago_s, "s3:PutObject"),
        change(week_ago_s + 60, "backup:StartBackupJob"),
        change(start_s, "s3:PutObject"),
        change(start_s + 300, "lambda:CreateFunction20150331"),
    ]
    expected = Expected("AWS.CloudTrail.Service.FirstUse", principal)
    return Story("backup role creates a function", start_s, tuple(steps), (expected,))


def trail_stopped(start_s: int, random: Random) -> Story:
    who = _user("console-carol", random)
    login = _aws(start_s, random, who, "signin:ConsoleLogin", address=ATTACKER, read_only=False)
    login.event.update(eventType="AwsConsoleSignIn", responseElements={"ConsoleLogin": "Success"})
    stop = _aws(start_s + 900, random, who, "cloudtrail:StopLogging", address=ATTACKER, read_only=False)
    return _story(
        "trail stopped after a login", [login, stop], Expected("AWS.CloudTrail.Logging.TamperAfterLogin", who["arn"])
    )


def trail_retired(start_s: int, random: Random) -> Story:
    who = _role("landing-zone", "pipeline", random)
    steps = [_aws(start_s, random, who, "cloudtrail:DeleteTrail", parameters={"name": "old"}, read_only=False)]
    return _story("trail retired by a pipeline", steps)


def around_the_world(start_s: int, random: Random) -> Story:
    who = _user("globetrotter", random)
    regions = ("us-east-1", "sa-east-1", "ap-south-1", "af-south-1", "eu-north-1")
    steps = [
        _aws(start_s + 90 * n, random, who, "ec2:DescribeInstances", region=region, address=ATTACKER)
        for n, region in enumerate(regions)
    ]
    return _story("one key in five regions", steps, Expected("AWS.CloudTrail.Region.Hop", who["accessKeyId"]))


def new_user_takes_over(start_s: int, random: Random) -> Story:
    admin, created = _user("admin-ada", random), _user("support-temp", random)

    def iam(after_s: int, who: Event, name: str) -> Step:
        parameters = {"userName": "support-temp", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}
        return _aws(start_s + after_s, random, who, f"iam:{name}", parameters=parameters, read_only=False)

    steps = [iam(0, admin, "CreateUser"), iam(60, admin, "CreateAccessKey"), iam(1800, created, "AttachUserPolicy")]
    expected = Expected("AWS.CloudTrail.NewUser.PrivilegedAction", f"{ACCOUNT}:support-temp")
    return _story("new user grants itself everything", steps, expected)


def windows_passwords(start_s: int, random: Random) -> Story:
    who = _user("helpful-hank", random)
    steps = [
        _aws(start_s + 30 * n, random, who, "ec2:GetPasswordData", parameters={"instanceId": f"i-0a1b2c3{n}"})
        for n in range(6)
    ]
    return _story("Windows passwords in a row", steps, Expected("AWS.CloudTrail.PasswordData.Burst", who["arn"]))


def buckets_one_by_one(start_s: int, random: Random) -> Story:
    who = _user("bucket-bob", random)
    calls = ("s3:GetBucketAcl", "s3:GetBucketPolicy")
    steps = [
        _aws(
            start_s + 10 * n, random, who, calls[n % 2], parameters={"bucketName": f"backup-{n // 2}"}, address=ATTACKER
        )
        for n in range(56)
    ]
    return _story("every bucket's policy read", steps, Expected("AWS.CloudTrail.S3.BucketEnumeration", who["arn"]))


# --- Okta -----------------------------------------------------------------------------------------------------------


def push_fatigue(start_s: int, random: Random) -> Story:
    who = "tired.tess@example.com"
    steps = [
        _okta(start_s + 45 * n, random, who, "user.mfa.okta_verify.deny_push", result="FAILURE", address=ATTACKER)
        for n in range(6)
    ]
    steps.append(_okta(start_s + 330, random, who, "user.authentication.auth_via_mfa", address=ATTACKER))
    return _story("push requests until one is accepted", steps, Expected("Okta.MFA.Fatigue", who))


def push_refused(start_s: int, random: Random) -> Story:
    who = "wary.wim@example.com"
    steps = [_okta(start_s + 60 * n, random, who, "user.mfa.okta_verify.deny_push", result="FAILURE") for n in range(3)]
    steps.append(_okta(start_s + 240, random, who, "user.authentication.auth_via_mfa"))
    return _story("three refusals, then a login", steps)


def password_spray(start_s: int, random: Random) -> Story:
    steps = [
        _okta(
            start_s + 25 * n,
            random,
            f"staff-{n}@example.com",
            "user.session.start",
            result="FAILURE",
            address="203.0.113.80",
        )
        for n in range(14)
    ]
    return _story("one address, fourteen users", steps, Expected("Okta.PasswordSpray", "203.0.113.80"))


def last_factor(start_s: int, random: Random) -> Story:
    who = "bare.ben@example.com"
    changes = (
        ("user.mfa.factor.activate", "User set up OKTA_VERIFY_PUSH factor"),
        ("user.mfa.factor.activate", "User set up FIDO_WEBAUTHN factor"),
        ("user.mfa.factor.deactivate", "User reset FIDO_WEBAUTHN factor"),
        ("user.mfa.factor.deactivate", "User reset OKTA_VERIFY_PUSH factor"),
    )
    steps = [
        _okta(start_s + 500 * n, random, who, kind, reason=reason, target=who)
        for n, (kind, reason) in enumerate(changes)
    ]
    return _story("second factors removed one by one", steps, Expected("Okta.MFA.LastFactorRemoved", who))


def session_stolen(start_s: int, random: Random) -> Story:
    who, session = "cookie.kim@example.com", "idxStolenSession"
    steps = [
        _okta(start_s, random, who, "user.session.start", session=session),
        _okta(start_s + 400, random, who, "user.authentication.sso", session=session),
        _okta(start_s + 900, random, who, "user.authentication.sso", session=session, address=ATTACKER),
    ]
    return _story("session moves to another device", steps, Expected("Okta.Session.NewDevice", session))


def reset_then_grant(start_s: int, random: Random) -> Story:
    who = "helpdesk.hal@example.com"
    steps = [
        _okta(start_s, random, who, "user.account.reset_password", target="ceo@example.com"),
        _okta(start_s + 1200, random, who, "user.account.privilege.grant", target="ceo@example.com"),
    ]
    return _story("help desk resets, then grants", steps, Expected("Okta.Admin.ResetThenGrant", _okta_id(who)))


# --- GitHub ---------------------------------------------------------------------------------------------------------


def mass_clone(start_s: int, random: Random) -> Story:
    who = "leaving-lee"
    steps = [_github(start_s + 15 * n, random, who, "git.clone", f"example/product-{n}") for n in range(22)]
    return _story(
        "every repository cloned on the last day",
        steps,
        Expected("GitHub.Repo.MassClone", who),
        Expected("GitHub.Repo.FirstAccess", who),  # from the fourth repository on, one alert a day
    )


def strange_repository(start_s: int, random: Random) -> Story:
    who = "curious-cas"
    names = ("web", "api", "docs", "web", "payroll")
    steps = [_github(start_s + 200 * n, random, who, "git.fetch", f"example/{name}") for n, name in enumerate(names)]
    return _story("a repository outside one's own", steps, Expected("GitHub.Repo.FirstAccess", who))


def protection_lifted(start_s: int, random: Random) -> Story:
    who = "rushed-ria"
    steps = [_github(start_s + 120 * n, random, who, "protected_branch.destroy", f"example/core-{n}") for n in range(4)]
    return _story("branch protection lifted", steps, Expected("GitHub.BranchProtection.Removed.Burst", who))


# --- GSuite ---------------------------------------------------------------------------------------------------------


def documents_shared(start_s: int, random: Random) -> Story:
    who = "outgoing.otto@example.com"
    steps = []
    for n in range(17):
        parameters: list[Event] = [
            {"name": "doc_id", "value": f"1SHARED{n:02d}EXAMPLE"},
            {"name": "doc_title", "value": f"Plan {n}"},
            {"name": "visibility_change", "value": "external"},
            {"name": "visibility", "value": "people_with_link"},
        ]
        steps.append(
            _gsuite(start_s + 50 * n, random, who, "drive", "acl_change", "change_document_visibility", parameters)
        )
    return _story("documents shared outside", steps, Expected("GSuite.Drive.SharingBurst", who))


def guessed_password(start_s: int, random: Random) -> Story:
    who = "simple.sam@example.com"
    names = ["login_failure"] * 6 + ["login_success"]
    parameters: list[Event] = [{"name": "is_suspicious", "boolValue": True}]
    steps = [_gsuite(start_s + 35 * n, random, who, "login", "login", name, parameters) for n, name in enumerate(names)]
    return _story("password guessed", steps, Expected("GSuite.Login.FailuresThenSuccess", who))


# --- EKS ------------------------------------------------------------------------------------------------------------


def cluster_secrets(start_s: int, random: Random) -> Story:
    who = "system:serviceaccount:web:frontend"
    steps = [_eks(start_s + 30 * n, random, who, f"team-{n}", "secrets", "list", 200) for n in range(7)]
    return _story("a pod lists secrets across the cluster", steps, Expected("Amazon.EKS.Secrets.Enumeration", who))


def cluster_probed(start_s: int, random: Random) -> Story:
    who = "intern-ivo"
    resources = ("pods", "secrets", "roles", "nodes")
    steps = [_eks(start_s + 12 * n, random, who, f"zone-{n // 4}", resources[n % 4], "create", 403) for n in range(18)]
    return _story("a user asks what is allowed", steps, Expected("Amazon.EKS.Forbidden.Probe", who))


STORIES: tuple[Callable[[int, Random], Story], ...] = (
    denied_everywhere,
    push_fatigue,
    mass_clone,
    role_from_elsewhere,
    guessed_password,
    cluster_secrets,
    secrets_harvest,
    password_spray,
    denied_nine_times,
    strange_repository,
    trail_stopped,
    last_factor,
    around_the_world,
    documents_shared,
    cluster_probed,
    new_user_takes_over,
    session_stolen,
    role_from_home,
    windows_passwords,
    reset_then_grant,
    buckets_one_by_one,
    protection_lifted,
    push_refused,
    service_never_used,
    trail_retired,
    denied_twice_over,
)
"""In the order of their start."""


# --- The events' shapes ---------------------------------------------------------------------------------------------


def _story(name: str, steps: list[Step], *expected: Expected) -> Story:
    return Story(name, steps[0].time_s, tuple(steps), expected)


def _user(name: str, random: Random) -> Event:
    key = aws_id(random.getrandbits(64))
    return {
        "type": "IAMUser",
        "principalId": f"AIDA{key}",
        "arn": f"arn:aws:iam::{ACCOUNT}:user/{name}",
        "accountId": ACCOUNT,
        "accessKeyId": f"AKIA{key}",
        "userName": name,
    }


def _role(name: str, session: str, random: Random, account: str = ACCOUNT) -> Event:
    key = aws_id(random.getrandbits(64))
    return {
        "type": "AssumedRole",
        "principalId": f"AROA{key}:{session}",
        "arn": f"arn:aws:sts::{account}:assumed-role/{name}/{session}",
        "accountId": account,
        "accessKeyId": f"ASIA{key}",
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": f"AROA{key}",
                "arn": f"arn:aws:iam::{account}:role/{name}",
                "accountId": account,
                "userName": name,
            }
        },
    }


def _aws(
    time_s: int,
    random: Random,
    who: Event,
    action: str,
    *,
    address: str = HOME,
    region: str = "us-east-1",
    parameters: Event | None = None,
    error: str | None = None,
    read_only: bool = True,
) -> Step:
    service, _, name = action.partition(":")
    refusal = {} if error is None else {"errorCode": error, "errorMessage": f"User: {who['arn']} is not authorized"}
    event = {
        "eventVersion": "1.09",
        "userIdentity": who,
        "eventTime": f"{time_text(time_s)}Z",
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "awsRegion": region,
        "sourceIPAddress": address,
        "userAgent": "aws-cli/2.15.24 Python/3.11.8",
        **refusal,
        "requestParameters": parameters,
        "responseElements": None,
        "requestID": uuid_text(random.getrandbits(128)),
        "eventID": uuid_text(random.getrandbits(128)),
        "readOnly": read_only,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": who["accountId"],
        "eventCategory": "Management",
    }
    return Step(time_s, "AWS.CloudTrail", event)


def _okta_id(who: str) -> str:
    return "00u" + who.partition("@")[0].replace(".", "")


def _okta(
    time_s: int,
    random: Random,
    who: str,
    kind: str,
    *,
    address: str = HOME,
    result: str = "SUCCESS",
    reason: str | None = None,
    session: str = "unknown",
    target: str | None = None,
) -> Step:
    at_home = address == HOME
    targets = [] if target is None else [{"id": _okta_id(target), "type": "User", "alternateId": target}]
    event = {
        "actor": {"id": _okta_id(who), "type": "User", "alternateId": who, "displayName": who.partition("@")[0]},
        "client": {"userAgent": {"browser": "CHROME"}, "device": "Computer", "ipAddress": address},
        "authenticationContext": {"externalSessionId": session},
        "displayMessage": kind,
        "eventType": kind,
        "outcome": {"result": result, "reason": reason},
        "published": f"{time_text(time_s)}.000Z",
        "securityContext": {"asNumber": 64_500 if at_home else 64_666, "isProxy": not at_home},
        "severity": "INFO",
        "debugContext": {"debugData": {"dtHash": "a1" * 16 if at_home else "f6" * 16}},
        "uuid": uuid_text(random.getrandbits(128)),
        "version": "0",
        "target": targets,
    }
    return Step(time_s, "Okta.SystemLog", event)


def _github(time_s: int, random: Random, who: str, action: str, repository: str) -> Step:
    event = {
        "@timestamp": time_s * 1000,
        "_document_id": f"{random.getrandbits(96):024x}",
        "action": action,
        "actor": who,
        "actor_ip": HOME,
        "business": "example",
        "created_at": time_s * 1000,
        "org": "example",
        "repo": repository,
        "repository": repository,
        "public_repo": False,
    }
    return Step(time_s, "GitHub.Audit", event)


def _gsuite(
    time_s: int, random: Random, who: str, application: str, kind: str, name: str, parameters: list[Event]
) -> Step:
    event = {
        "kind": "admin#reports#activity",
        "id": {
            "time": f"{time_text(time_s)}.000Z",
            "uniqueQualifier": str(random.getrandbits(60)),
            "applicationName": application,
            "customerId": "C01example",
        },
        "actor": {"callerType": "USER", "email": who, "profileId": "1180000000"},
        "ipAddress": HOME,
        "events": [{"type": kind, "name": name, "parameters": parameters}],
    }
    return Step(time_s, "GSuite.ActivityEvent", event)


def _eks(time_s: int, random: Random, who: str, namespace: str, resource: str, verb: str, code: int) -> Step:
    event = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": uuid_text(random.getrandbits(128)),
        "stage": "ResponseComplete",
        "requestURI": f"/api/v1/namespaces/{namespace}/{resource}",
        "verb": verb,
        "user": {"username": who, "groups": ["system:authenticated"]},
        "sourceIPs": [HOME],
        "userAgent": "kubectl/v1.29.2",
        "objectRef": {"resource": resource, "namespace": namespace, "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": code},
        "requestReceivedTimestamp": f"{time_text(time_s)}.000000Z",
        "stageTimestamp": f"{time_text(time_s)}.100000Z",
    }
    return Step(time_s, "Amazon.EKS.Audit", event)

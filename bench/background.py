"""Ordinary traffic as JSON lines, a class for each log type: real shapes and sizes, and nothing for the shipped pack to alert on.

Every class is made with a source of randomness and has `line(time_s) -> str`: the next event, happening then (whole
seconds since 1970), without a newline. Texts are built in advance and spliced, because json.dumps for each event would
take most of the time. What could add up to an alert is held back here: denials and failures are rationed per
principal, a role is assumed from one address only, and nobody reads more than a handful of secrets, buckets or
repositories.
"""

from __future__ import annotations

from bisect import bisect
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from random import Random
from typing import NamedTuple, Protocol

ACCOUNT = "111122223333"
ARCHIVE_ACCOUNT = "444455556666"
ORGANISATION = "example"
HOUR_S = 3600
DAY_S = 86_400



def aws_id(bits: int) -> str:
    """16 characters as AWS writes ids: base 32, so that digits rarely stand together."""
    mixed = bits * 0x9E3779B97F4A7C15 & (1 << 80) - 1  # neighbours should not look alike
    return "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[mixed >> shift & 31] for shift in range(75, -1, -5))


class Traffic(Protocol):
    """One log type's ordinary events."""

    def line(self, time_s: int) -> str: ...


class Zipf:
    """Draws 0 with probability `head`, else n of 1 .. count with one that falls as n ** -exponent."""

    def __init__(self, count: int, exponent: float, head: float = 0.0) -> None:
        self._head = head
        self._cumulative = list(accumulate(rank**-exponent for rank in range(1, count + 1)))
        self._scale = self._cumulative[-1] / (1 - head)

    def draw(self, fraction: float) -> int:
        """`fraction` is uniform in [0, 1)."""
        if fraction < self._head:
            return 0
        return 1 + bisect(self._cumulative, (fraction - self._head) * self._scale)


class Ration:
    """At most `limit` of something for each principal within a clock period of `period_s`."""

    def __init__(self, limit: int, period_s: int) -> None:
        self._limit = limit
        self._period_s = period_s
        self._taken: dict[str, tuple[int, int]] = {}

    def take(self, principal: str, time_s: int) -> bool:
        period = time_s // self._period_s
        last, count = self._taken.get(principal, (period, 0))
        if last != period:
            count = 0
        if count == self._limit:
            return False
        self._taken[principal] = (period, count + 1)
        return True


@lru_cache(maxsize=4096)
def time_text(time_s: int) -> str:
    """RFC 3339 without the zone, whole seconds."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def uuid_text(bits: int) -> str:
    """128 bits in a UUID's clothes."""
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def address(number: int) -> str:
    """The n-th address of 198.18.0.0/15, which is set apart for benchmarks: nobody's."""
    return f"198.{18 + (number >> 16) % 2}.{number >> 8 & 255}.{number & 255}"


# --- AWS CloudTrail -------------------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """One kind of API call; %(who)s is its caller's name, %(account)s the account, %(n)d one of four numbers."""

    weight: int
    service: str
    name: str
    parameters: str = "null"
    response: str = "null"
    read_only: bool = True
    cross_region: bool = False
    """A global service, recorded in us-east-1."""


_FILTERS = (
    '{"filterSet":{"items":[{"name":"vpc-id","valueSet":{"items":[{"value":"vpc-0a1b2c3d4e5f6%(n)d789"}]}},'
    '{"name":"tag:owner","valueSet":{"items":[{"value":"%(who)s"}]}}]},"maxResults":100}'
)
_BUCKET = '{"bucketName":"%(who)s-data-%(n)d","Host":"%(who)s-data-%(n)d.s3.eu-central-1.amazonaws.com","acl":""}'
_SECRET = (
    '{"secretId":"arn:aws:secretsmanager:eu-central-1:%(account)s:secret:%(who)s/database-%(n)d",'
    '"versionStage":"AWSCURRENT"}'
)
_KEY = (
    '{"encryptionContext":{"aws:ebs:id":"vol-0f9e8d7c6b5a4%(n)d321","owner":"%(who)s"},'
    '"encryptionAlgorithm":"SYMMETRIC_DEFAULT","keyId":"alias/%(who)s"}'
)
_LOG_STREAM = '{"logGroupName":"/service/%(who)s/%(n)d","logStreamName":"2026/03/02/[$LATEST]%(n)d0c5e1f2a"}'
_ROLE = (
    '{"roleArn":"arn:aws:iam::%(account)s:role/deploy-%(who)s","roleSessionName":"deploy-%(n)d","durationSeconds":3600}'
)
_ROLE_GIVEN = (
    '{"credentials":{"accessKeyId":"ASIADEPLOY%(n)dEXAMPLE","sessionToken":"HIDDEN_DUE_TO_SECURITY_REASONS",'
    '"expiration":"Mar 2, 2026, 11:59:59 PM"},"assumedRoleUser":{"assumedRoleId":"AROADEPLOY:deploy-%(n)d",'
    '"arn":"arn:aws:sts::%(account)s:assumed-role/deploy-%(who)s/deploy-%(n)d"}}'
)
_IMAGE = '{"repositoryName":"%(who)s/service-%(n)d","imageIds":[{"imageTag":"latest"}],"registryId":"%(account)s"}'

_CALLS = (
    _Call(18, "ec2", "DescribeInstances", _FILTERS),
    _Call(14, "ec2", "DescribeRouteTables", _FILTERS),
    _Call(9, "ec2", "DescribeSecurityGroups", _FILTERS),
    _Call(5, "ec2", "DescribeVolumes", _FILTERS),
    _Call(11, "kms", "Decrypt", _KEY),
    _Call(6, "kms", "GenerateDataKey", _KEY),
    _Call(5, "s3", "GetBucketAcl", _BUCKET),
    _Call(5, "s3", "GetBucketPolicy", _BUCKET),
    _Call(4, "s3", "GetBucketTagging", _BUCKET),
    _Call(4, "secretsmanager", "GetSecretValue", _SECRET),
    _Call(5, "logs", "CreateLogStream", _LOG_STREAM, read_only=False),
    _Call(3, "logs", "DescribeLogGroups", '{"limit":50,"logGroupNamePrefix":"/service/%(who)s/%(n)d"}'),
    _Call(5, "sts", "AssumeRole", _ROLE, _ROLE_GIVEN, cross_region=True),
    _Call(4, "sts", "GetCallerIdentity", cross_region=True),
    _Call(4, "iam", "GetUser", '{"userName":"%(who)s"}', cross_region=True),
    _Call(3, "iam", "ListAttachedRolePolicies", '{"roleName":"deploy-%(who)s","maxItems":100}', cross_region=True),
    _Call(4, "ecr", "BatchGetImage", _IMAGE),
    _Call(
        3, "ssm", "DescribeParameters", '{"maxResults":50,"parameterFilters":[{"key":"Path","values":["/%(who)s"]}]}'
    ),
    _Call(3, "monitoring", "PutMetricAlarm", '{"alarmName":"%(who)s-%(n)d","threshold":80.0}', read_only=False),
    _Call(3, "autoscaling", "DescribeAutoScalingGroups", '{"autoScalingGroupNames":["%(who)s-%(n)d"]}'),
)
_DENIED_CALLS = ("s3:GetBucketPolicy", "kms:Decrypt", "iam:ListUsers", "ec2:StopInstances", "ssm:GetParameter")
_AGENTS = (
    "Boto3/1.34.51 md/Botocore#1.34.51 ua/2.0 os/linux#5.10.209 md/arch#x86_64 lang/python#3.11.6 cfg/retry-mode#standard",
    "APN/1.0 HashiCorp/1.0 Terraform/1.7.4 (+https://www.terraform.io) terraform-provider-aws/5.39.0 aws-sdk-go-v2/1.25.2",
    "aws-cli/2.15.24 Python/3.11.8 Linux/6.1.77 exe/x86_64.amzn.2023 prompt/off command/ec2.describe-instances",
    "aws-sdk-java/2.24.9 Linux/5.10.210 OpenJDK_64-Bit_Server_VM/17.0.10 Java/17.0.10 vendor/Amazon.com_Inc. io/async",
)
_REGIONS = ("eu-central-1", "eu-west-1", "us-east-1", "us-west-2", "ap-southeast-2")

_CLOUDTRAIL = (
    '{"eventVersion":"1.09","userIdentity":%s,"eventTime":"%sZ","eventSource":"%s.amazonaws.com","eventName":"%s",'
    '"awsRegion":"%s","sourceIPAddress":"%s","userAgent":"%s",%s"requestParameters":%s,"responseElements":%s,'
    '"requestID":"%s","eventID":"%s","readOnly":%s,"eventType":"AwsApiCall","managementEvent":true,'
    '"recipientAccountId":"%s","eventCategory":"Management","tlsDetails":{"tlsVersion":"TLSv1.3",'
    '"cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"%s.%s.amazonaws.com"}}'
)


class _Principal(NamedTuple):
    name: str
    identity: str
    arn: str
    address: str
    agent: str
    region: str


class CloudTrail:
    """Calls of one account: half of them by one principal, the rest by many, some by sessions seen once."""

    def __init__(
        self, random: Random, account: str = ACCOUNT, principals: int = 20_000, one_shot: float = 0.06
    ) -> None:
        self._random = random
        self._account = account
        self._one_shot = one_shot
        self._skew = Zipf(principals, exponent=1.2, head=0.5)
        self._principals: dict[int, _Principal] = {}
        self._calls = [call for call in _CALLS for _ in range(call.weight)]
        self._denials = Ration(limit=2, period_s=HOUR_S)

    def line(self, time_s: int) -> str:
        chance = self._random.random
        number = self._skew.draw(chance())
        principal = self._principals.get(number) or self._meet(number)
        if number and chance() < self._one_shot:
            principal = self._session_of(principal, time_s)
        call = self._calls[int(chance() * len(self._calls))]
        error = ""
        luck = chance()
        if luck < 0.02 and self._denials.take(principal.name, time_s):
            error = denial(principal.arn, _DENIED_CALLS[int(luck * 250)])
        elif luck > 0.97:
            error = '"errorCode":"ThrottlingException","errorMessage":"Rate exceeded",'
        return self.call(principal, call, time_s, error)

    def call(self, principal: _Principal, call: _Call, time_s: int, error: str = "", source: str = "") -> str:
        """The line of one call; `error` is spliced as it is, `source` stands in for the caller's address."""
        bits = self._random.getrandbits
        filled = {"who": principal.name, "account": self._account, "n": bits(2)}
        region = "us-east-1" if call.cross_region else principal.region
        return _CLOUDTRAIL % (
            principal.identity,
            time_text(time_s),
            call.service,
            call.name,
            region,
            source or principal.address,
            principal.agent,
            error,
            call.parameters % filled,
            "null" if error else call.response % filled,
            uuid_text(bits(128)),
            uuid_text(bits(128)),
            "true" if call.read_only else "false",
            self._account,
            call.service,
            region,
        )

    def _meet(self, number: int) -> _Principal:
        """Principals are made when first drawn: an IAM user, or a role's long session, always with the same key."""
        name = f"{'svc' if number % 3 else 'user'}-{number:05d}"
        key = aws_id(int(self._account) << 32 | number)
        if number % 3:
            arn, identity = self._role_session(name, f"{name}-main", f"ASIA{key}", time_s=0)
        else:
            arn = f"arn:aws:iam::{self._account}:user/{name}"
            identity = (
                f'{{"type":"IAMUser","principalId":"AIDA{key}","arn":"{arn}","accountId":"{self._account}",'
                f'"accessKeyId":"AKIA{key}","userName":"{name}"}}'
            )
        principal = _Principal(
            name,
            identity,
            arn,
            address(number),
            _AGENTS[number % len(_AGENTS)],
            _REGIONS[number % len(_REGIONS)],
        )
        self._principals[number] = principal
        return principal

    def _session_of(self, principal: _Principal, time_s: int) -> _Principal:
        """The same service under a session and an access key that nobody sees again."""
        key = aws_id(self._random.getrandbits(64))
        arn, identity = self._role_session(principal.name, f"run-{key[:8].lower()}", f"ASIA{key}", time_s)
        return principal._replace(arn=arn, identity=identity)

    def _role_session(self, role: str, session: str, key: str, time_s: int) -> tuple[str, str]:
        arn = f"arn:aws:sts::{self._account}:assumed-role/{role}/{session}"
        return arn, (
            f'{{"type":"AssumedRole","principalId":"AROA{role.upper()}EXAMPLE:{session}","arn":"{arn}",'
            f'"accountId":"{self._account}","accessKeyId":"{key}","sessionContext":{{"sessionIssuer":{{"type":"Role",'
            f'"principalId":"AROA{role.upper()}EXAMPLE","arn":"arn:aws:iam::{self._account}:role/{role}",'
            f'"accountId":"{self._account}","userName":"{role}"}},"webIdFederationData":{{}},"attributes":'
            f'{{"creationDate":"{time_text(time_s or 1772323200)}Z","mfaAuthenticated":"false"}}}}}}'
        )


def denial(arn: str, action: str) -> str:
    """The error fields of a refused call, to be spliced into an event."""
    return f'"errorCode":"AccessDenied","errorMessage":"User: {arn} is not authorized to perform: {action}",'


class StatefulCloudTrail(CloudTrail):
    """CloudTrail of which a given share is denials and AssumeRole, half and half, without rations: it alerts freely."""

    def __init__(self, random: Random, share: float) -> None:
        super().__init__(random)
        self._share = share
        self._calls = [call for call in self._calls if call.name != "AssumeRole"]
        self._assume_role = next(call for call in _CALLS if call.name == "AssumeRole")

    def line(self, time_s: int) -> str:
        chance = self._random.random
        number = self._skew.draw(chance())
        principal = self._principals.get(number) or self._meet(number)
        call = self._calls[int(chance() * len(self._calls))]
        luck = chance()
        if luck < self._share / 2:
            return self.call(principal, call, time_s, denial(principal.arn, f"{call.service}:{call.name}"))
        if luck < self._share:
            # One assumption in fifty comes from elsewhere: 64 other addresses, as a role has them that people assume.
            source = address(100_000 + self._random.getrandbits(6)) if chance() < 0.02 else ""
            return self.call(principal, self._assume_role, time_s, source=source)
        return self.call(principal, call, time_s)


# --- Okta -----------------------------------------------------------------------------------------------------------

_OKTA_EVENTS = (
    ("user.authentication.sso", "User single sign on to app", "SUCCESS"),
    ("user.authentication.sso", "User single sign on to app", "SUCCESS"),
    ("policy.evaluate_sign_on", "Evaluation of sign-on policy", "ALLOW"),
    ("policy.evaluate_sign_on", "Evaluation of sign-on policy", "ALLOW"),
    ("user.session.start", "User login to Okta", "SUCCESS"),
    ("user.authentication.auth_via_mfa", "Authentication of user via MFA", "SUCCESS"),
    ("app.oauth2.token.grant.access_token", "OAuth2 access token is granted", "SUCCESS"),
    ("user.session.end", "User logout from Okta", "SUCCESS"),
)
_BROWSER = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36"
_OKTA = (
    '{"actor":{"id":"00u%(id)s","type":"User","alternateId":"%(who)s@example.com","displayName":"%(who)s","detailEntry":null},'
    '"client":{"userAgent":{"rawUserAgent":"' + _BROWSER + '","os":"Mac OS X","browser":"CHROME"},"zone":"null",'
    '"device":"Computer","id":null,"ipAddress":"%(address)s","geographicalContext":{"city":"Utrecht","state":"Utrecht",'
    '"country":"Netherlands","postalCode":"3511","geolocation":{"lat":52.0907,"lon":5.1214}}},"device":null,'
    '"authenticationContext":{"authenticationProvider":null,"credentialProvider":null,"credentialType":null,"issuer":null,'
    '"interface":null,"authenticationStep":0,"rootSessionId":"%(session)s","externalSessionId":"%(session)s"},'
    '"displayMessage":"%(message)s","eventType":"%(type)s","outcome":{"result":"%(result)s","reason":%(reason)s},'
    '"published":"%(time)s.%(ms)03dZ","securityContext":{"asNumber":%(asn)d,"asOrg":"example access %(asn)d","isp":"example",'
    '"domain":"example.net","isProxy":false},"severity":"INFO","debugContext":{"debugData":{"requestId":"%(request)s",'
    '"dtHash":"%(id)s%(id)s","requestUri":"/api/v1/authn","url":"/api/v1/authn?"}},"legacyEventType":null,"transaction":{"type":"WEB",'
    '"id":"%(request)s","detail":{}},"uuid":"%(uuid)s","version":"0","request":{"ipChain":[{"ip":"%(address)s","version":"V4",'
    '"source":null}]},"target":[{"id":"0oa%(id)s","type":"AppInstance","alternateId":"Wiki","displayName":"Wiki",'
    '"detailEntry":null}]}'
)


class Okta:
    """Sign-ins of two thousand people, each at one address with one device."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._skew = Zipf(2000, exponent=1.1)
        self._failures = Ration(limit=1, period_s=HOUR_S)

    def line(self, time_s: int) -> str:
        chance, bits = self._random.random, self._random.getrandbits
        number = self._skew.draw(chance())
        who = f"person-{number:04d}"
        kind, message, result = _OKTA_EVENTS[bits(3)]
        reason = "null"
        if kind == "user.session.start" and chance() < 0.1 and self._failures.take(who, time_s):
            result, reason = "FAILURE", '"INVALID_CREDENTIALS"'
        uuid = uuid_text(bits(128))
        return _OKTA % {
            "who": who,
            "id": f"{number:017x}",
            "address": address(40_000 + number),
            "session": f"idx{number:04d}-{time_s // DAY_S}",
            "message": message,
            "type": kind,
            "result": result,
            "reason": reason,
            "time": time_text(time_s),
            "ms": bits(9),
            "asn": 64_496 + number % 16,
            "request": uuid[:13],
            "uuid": uuid,
        }


# --- GitHub ---------------------------------------------------------------------------------------------------------

_GITHUB_ACTIONS = (
    "git.fetch",
    "git.fetch",
    "git.clone",
    "git.push",
    "pull_request.merge",
    "workflows.created_workflow_run",
    "workflows.completed_workflow_run",
    "protected_branch.policy_override",
)
_GITHUB = (
    '{"@timestamp":%(ms)d,"_document_id":"%(id)s","action":"%(action)s","actor":"%(who)s","actor_id":%(number)d,'
    '"actor_ip":"%(address)s","actor_location":{"country_code":"NL"},"business":"example","created_at":%(ms)d,'
    '"org":"example","org_id":4242,"repo":"%(repo)s","repository":"%(repo)s","public_repo":false,"transport_protocol":1,'
    '"transport_protocol_name":"http","operation_type":"access","user_agent":"git/2.43.0","programmatic_access_type":'
    '"GitHub App server-to-server token","hashed_token":"%(id)s="}'
)


class GitHub:
    """Three repositories each for four hundred people, the first of whom is a build machine."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._skew = Zipf(400, exponent=1.2, head=0.3)

    def line(self, time_s: int) -> str:
        bits = self._random.getrandbits
        number = self._skew.draw(self._random.random())
        return _GITHUB % {
            "ms": time_s * 1000 + bits(9),
            "id": f"{bits(96):024x}",
            "action": _GITHUB_ACTIONS[bits(3)],
            "who": f"dev-{number:03d}" if number else "build-bot",
            "number": 9000 + number,
            "address": address(50_000 + number),
            "repo": f"example/{'service' if number else 'platform'}-{number:03d}-{int(self._random.random() * 3)}",
        }


# --- GSuite ---------------------------------------------------------------------------------------------------------

_GSUITE = (
    '{"kind":"admin#reports#activity","id":{"time":"%(time)s.%(ms)03dZ","uniqueQualifier":"%(id)d","applicationName":'
    '"%(application)s","customerId":"C01example"},"etag":"\\"%(id)x\\"","actor":{"callerType":"USER","email":'
    '"%(who)s@example.com","profileId":"1%(number)020d"},"ipAddress":"%(address)s","events":[%(event)s]}'
)
_LOGIN = (
    '{"type":"login","name":"%s","parameters":[{"name":"login_type","value":"google_password"},'
    '{"name":"login_challenge_method","multiValue":["password"]},{"name":"is_suspicious","boolValue":false}]}'
)
_DRIVE = (
    '{"type":"access","name":"%s","parameters":[{"name":"primary_event","boolValue":true},{"name":"billable","boolValue":true},'
    '{"name":"doc_id","value":"1%s"},{"name":"doc_type","value":"document"},{"name":"is_encrypted","boolValue":false},'
    '{"name":"doc_title","value":"Minutes %d"},{"name":"visibility","value":"private"},{"name":"owner","value":"%s@example.com"},'
    '{"name":"owner_is_shared_drive","boolValue":false}]}'
)


class GSuite:
    """Logins and documents of five hundred people."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._skew = Zipf(500, exponent=1.1)
        self._failures = Ration(limit=1, period_s=HOUR_S)

    def line(self, time_s: int) -> str:
        chance, bits = self._random.random, self._random.getrandbits
        number = self._skew.draw(chance())
        who = f"colleague-{number:03d}"
        if chance() < 0.4:
            application = "login"
            failed = chance() < 0.1 and self._failures.take(who, time_s)
            event = _LOGIN % ("login_failure" if failed else "login_success")
        else:
            application = "drive"
            document = bits(4)
            action = ("view", "edit", "download", "create")[bits(2)]
            event = _DRIVE % (action, f"{number:03d}{document:02d}DOCUMENTEXAMPLE", document, who)
        return _GSUITE % {
            "time": time_text(time_s),
            "ms": bits(9),
            "id": bits(60),
            "application": application,
            "who": who,
            "number": number,
            "address": address(60_000 + number),
            "event": event,
        }


# --- EKS ------------------------------------------------------------------------------------------------------------

_EKS = (
    '{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"%(id)s","stage":"ResponseComplete",'
    '"requestURI":"/api/v1/namespaces/%(namespace)s/%(resource)s/%(name)s","verb":"%(verb)s","user":{"username":"%(who)s",'
    '"uid":"aws-iam-authenticator:111122223333:%(number)d","groups":["system:authenticated"],"extra":{"accessKeyId":'
    '["ASIAEKS%(number)09d"],"arn":["arn:aws:sts::111122223333:assumed-role/cluster/%(number)d"]}},"sourceIPs":["%(address)s"],'
    '"userAgent":"kubectl/v1.29.2 (linux/amd64) kubernetes/4b8e819","objectRef":{"resource":"%(resource)s","namespace":'
    '"%(namespace)s","name":"%(name)s","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":%(code)d},'
    '"requestReceivedTimestamp":"%(time)s.%(us)06dZ","stageTimestamp":"%(time)s.%(us)06dZ","annotations":'
    '{"authorization.k8s.io/decision":"%(decision)s","authorization.k8s.io/reason":"RBAC"}}'
)
_EKS_RESOURCES = ("pods", "pods", "configmaps", "endpoints", "services", "secrets", "deployments", "nodes")


class EKS:
    """Two hundred users of a cluster, each at home in two namespaces."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._skew = Zipf(200, exponent=1.2)
        self._refusals = Ration(limit=2, period_s=DAY_S)

    def line(self, time_s: int) -> str:
        chance, bits = self._random.random, self._random.getrandbits
        number = self._skew.draw(chance())
        who = f"operator-{number:03d}"
        refused = chance() < 0.02 and self._refusals.take(who, time_s)
        resource = _EKS_RESOURCES[bits(3)]
        return _EKS % {
            "id": uuid_text(bits(128)),
            "namespace": f"team-{number:03d}-{bits(1)}",
            "resource": resource,
            "name": f"{resource}-{bits(4)}",
            "verb": ("get", "list", "watch", "get")[bits(2)],
            "who": who,
            "number": number,
            "address": address(70_000 + number),
            "code": 403 if refused else 200,
            "decision": "forbid" if refused else "allow",
            "time": time_text(time_s),
            "us": bits(19),
        }

"""The founding rules cut in two, as keyed stream processors want them: what an event says, and what that does to its key's state.

Needs nothing but orjson, for it is imported in the environments of those processors.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

BURST, NEW_IP = "AWS.CloudTrail.AccessDenied.Burst", "AWS.CloudTrail.AssumeRole.NewIP"
_HOUR_S = 3600
_REMEMBER_S = 90 * 86_400
_DENIALS_ALLOWED = 10
_DENIALS = frozenset(("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"))

Said = tuple[str, str, float, str]
"""(rule id, ARN of the principal or the role, time in seconds since 1970, address or "")"""


def select(line: bytes | str) -> Said | None:
    """What an event says; None where it concerns neither rule. The first two are the key of its state."""
    event = orjson.loads(line)
    error = event.get("errorCode")
    if error in _DENIALS:
        identity = event["userIdentity"]
        arn = identity.get("arn")
        if arn and not identity.get("invokedBy"):
            return BURST, arn, _time_s(event), ""
    elif error is None and event["eventName"] == "AssumeRole" and event["eventSource"] == "sts.amazonaws.com":
        role = (event["requestParameters"] or {}).get("roleArn")
        address = event.get("sourceIPAddress")
        if role and address and not address.endswith("amazonaws.com") and address != "AWS Internal":
            return NEW_IP, role, _time_s(event), address
    return None


def step(state: Any, said: Said) -> tuple[Any, bool]:
    """(the key's state after what was said, whether it is a match). A state is (count or addresses, expiry), or None."""
    rule_id, _, now_s, address = said
    if state is not None and state[1] <= now_s:
        state = None
    if rule_id == BURST:
        count, expiry_s = state or (0, now_s + _HOUR_S)
        if count + 1 == _DENIALS_ALLOWED:
            return None, True
        return (count + 1, expiry_s), False
    addresses = state[0] if state is not None else set()
    new = bool(addresses) and address not in addresses
    addresses.add(address)
    return (addresses, now_s + _REMEMBER_S), new


def match_line(said: Said, offset: int) -> str:
    return orjson.dumps({"rule_id": said[0], "position": (0, offset), "dedup": said[1]}).decode()


def _time_s(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["eventTime"]).timestamp()

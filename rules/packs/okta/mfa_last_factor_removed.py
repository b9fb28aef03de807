import re

from panther_detection_helpers.caching import (
    add_to_string_set,
    get_string_set,
    remove_from_string_set,
    reset_string_set,
)

ACTIVATE = "user.mfa.factor.activate"
DEACTIVATE = "user.mfa.factor.deactivate"
RESET_ALL = "user.mfa.factor.reset_all"
REMEMBER_S = 365 * 86400


def user_of(event):
    """The user whose factors change; an administrator may be the actor."""
    for target in event.get("target") or []:
        if target.get("type") == "User":
            return target.get("alternateId")
    return None


def factor_of(event):
    """The factor named in an outcome like "User reset FIDO_WEBAUTHN factor"."""
    named = re.search(r"(\w+) factor", event.deep_get("outcome", "reason", default=""))
    return named and named.group(1)


def rule(event):
    kind = event.get("eventType")
    if kind not in (ACTIVATE, DEACTIVATE, RESET_ALL) or event.deep_get("outcome", "result") != "SUCCESS":
        return False
    user = user_of(event)
    factor = factor_of(event)
    if not user or not (factor or kind == RESET_ALL):
        return False

    key = f"{__name__}:{user}"
    if kind == ACTIVATE:
        add_to_string_set(key, factor, event.event_time_epoch() + REMEMBER_S)
        return False

    active = get_string_set(key)
    if kind == RESET_ALL:
        reset_string_set(key)
        return bool(active)
    # A factor that we never saw activated says nothing about how many are left.
    return factor in active and not remove_from_string_set(key, factor)


def title(event):
    return f"[{user_of(event)}] has no MFA factor left"


def dedup(event):
    return user_of(event)


def severity(event):
    return "DEFAULT" if event.deep_get("actor", "alternateId") == user_of(event) else "HIGH"


def alert_context(event):
    return {
        "user": user_of(event),
        "removed_by": event.deep_get("actor", "alternateId"),
        "what": event.deep_get("outcome", "reason"),
        "source_ip": event.deep_get("client", "ipAddress"),
        "user_agent": event.deep_get("client", "userAgent", "rawUserAgent"),
    }

from panther_detection_helpers.caching import get_counter, increment_counter, reset_counter

REFUSED = "user.mfa.okta_verify.deny_push"
PASSED = "user.authentication.auth_via_mfa"
THRESHOLD = 5
GAP_S = 600


def rule(event):
    kind = event.get("eventType")
    user = event.deep_get("actor", "alternateId")
    if kind not in (REFUSED, PASSED) or not user:
        return False

    key = f"{__name__}:{user}"
    if kind == REFUSED:
        increment_counter(key, 1, event.event_time_epoch() + GAP_S)
        return False
    if event.deep_get("outcome", "result") != "SUCCESS" or get_counter(key) < THRESHOLD:
        return False
    reset_counter(key)
    return True


def title(event):
    user = event.deep_get("actor", "alternateId")
    return f"[{user}] passed MFA after refusing at least {THRESHOLD} push requests"


def dedup(event):
    return event.deep_get("actor", "alternateId")


def alert_context(event):
    return {
        "user": event.deep_get("actor", "alternateId"),
        "source_ip": event.deep_get("client", "ipAddress"),
        "country": event.deep_get("client", "geographicalContext", "country"),
        "user_agent": event.deep_get("client", "userAgent", "rawUserAgent"),
        "session": event.deep_get("authenticationContext", "externalSessionId"),
        "factor": event.deep_get("debugContext", "debugData", "factor"),
    }

from panther_detection_helpers.caching import add_to_string_set, reset_string_set, set_key_expiration

THRESHOLD = 10
WINDOW_S = 1800


def rule(event):
    if event.get("eventType") != "user.session.start" or event.deep_get("outcome", "result") != "FAILURE":
        return False
    address = event.deep_get("client", "ipAddress")
    user = event.deep_get("actor", "alternateId")
    if not address or not user:
        return False

    key = f"{__name__}:{address}"
    users = add_to_string_set(key, user)
    if len(users) == 1:
        set_key_expiration(key, event.event_time_epoch() + WINDOW_S)
    if len(users) < THRESHOLD:
        return False
    reset_string_set(key)
    return True


def title(event):
    address = event.deep_get("client", "ipAddress")
    return f"Failed Okta sign-ins of {THRESHOLD} users from [{address}] within 30 minutes"


def dedup(event):
    return event.deep_get("client", "ipAddress")


def alert_context(event):
    return {
        "source_ip": event.deep_get("client", "ipAddress"),
        "country": event.deep_get("client", "geographicalContext", "country"),
        "network": event.deep_get("securityContext", "asOrg"),
        "is_proxy": event.deep_get("securityContext", "isProxy"),
        "user_agent": event.deep_get("client", "userAgent", "rawUserAgent"),
        "last_user": event.deep_get("actor", "alternateId"),
        "reason": event.deep_get("outcome", "reason"),
    }

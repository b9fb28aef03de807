from panther_detection_helpers.caching import get_dictionary, put_dictionary, set_key_expiration

LEARNING_S = 7 * 86400
REMEMBER_S = 90 * 86400


def principal_of(event):
    """The role behind a session: sessions come and go, habits belong to the role."""
    role = event.deep_get("userIdentity", "sessionContext", "sessionIssuer", "arn")
    return role or event.deep_get("userIdentity", "arn")


def rule(event):
    # Read-only calls are left out: one visit to the console's landing pages makes them in dozens of services.
    if event.get("readOnly") is not False or event.get("errorCode"):
        return False
    principal = principal_of(event)
    service = event.get("eventSource")
    if not principal or not service or event.deep_get("userIdentity", "invokedBy"):
        return False

    key = f"{__name__}:{principal}"
    now = int(event.event_time_epoch())
    first_uses = get_dictionary(key)
    if service in first_uses:
        set_key_expiration(key, now + REMEMBER_S)
        return False
    put_dictionary(key, {**first_uses, service: now}, now + REMEMBER_S)
    return bool(first_uses) and now - min(first_uses.values()) > LEARNING_S


def title(event):
    return f"First change by [{principal_of(event)}] in the service [{event.get('eventSource')}]"


def dedup(event):
    return principal_of(event)


def alert_context(event):
    return {
        "principal": principal_of(event),
        "call": f"{event.get('eventSource')}:{event.get('eventName')}",
        "region": event.get("awsRegion"),
        "source_ip": event.get("sourceIPAddress"),
        "user_agent": event.get("userAgent"),
        "services_used": sorted(get_dictionary(f"{__name__}:{principal_of(event)}")),
    }

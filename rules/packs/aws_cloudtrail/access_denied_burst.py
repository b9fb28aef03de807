from panther_detection_helpers.caching import increment_counter, reset_counter, set_key_expiration

# EC2 says Client.UnauthorizedOperation where most services say AccessDenied.
DENIALS = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"}
THRESHOLD = 10
WINDOW_S = 3600


def rule(event):
    if event.get("errorCode") not in DENIALS:
        return False
    principal = event.deep_get("userIdentity", "arn")
    # A service acting for the principal is refused over and over when its role or an SCP is wrong: no attacker.
    if not principal or event.deep_get("userIdentity", "invokedBy"):
        return False

    key = f"{__name__}:{principal}"
    denials = increment_counter(key)
    if denials == 1:
        set_key_expiration(key, event.event_time_epoch() + WINDOW_S)
    if denials < THRESHOLD:
        return False
    reset_counter(key)
    return True


def title(event):
    return f"{THRESHOLD} AWS calls denied to [{event.deep_get('userIdentity', 'arn')}] within an hour"


def dedup(event):
    return event.deep_get("userIdentity", "arn")


def alert_context(event):
    return {
        "principal": event.deep_get("userIdentity", "arn"),
        "access_key_id": event.deep_get("userIdentity", "accessKeyId"),
        "source_ip": event.get("sourceIPAddress"),
        "user_agent": event.get("userAgent"),
        "last_denied_call": f"{event.get('eventSource')}:{event.get('eventName')}",
        "last_error_message": event.get("errorMessage"),
    }

from panther_detection_helpers.caching import increment_counter

# Shared with AWS.CloudTrail.Logging.TamperAfterLogin, which reads it.
SHARED_PREFIX = "aws.console_login"
REMEMBER_S = 3600


def rule(event):
    if event.get("eventName") != "ConsoleLogin":
        return False
    principal = event.deep_get("userIdentity", "arn")
    if principal and event.deep_get("responseElements", "ConsoleLogin") == "Success":
        increment_counter(f"{SHARED_PREFIX}:{principal}", 1, event.event_time_epoch() + REMEMBER_S)
    return False


def title(event):
    return f"Console login of [{event.deep_get('userIdentity', 'arn')}]"


def dedup(event):
    return event.deep_get("userIdentity", "arn", default="")


def alert_context(event):
    return {"principal": event.deep_get("userIdentity", "arn"), "source_ip": event.get("sourceIPAddress")}

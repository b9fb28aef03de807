from panther_detection_helpers.caching import get_counter

# Shared with AWS.CloudTrail.ConsoleLogin.Marker, which writes it for an hour.
SHARED_PREFIX = "aws.console_login"
TAMPERING = {"StopLogging", "DeleteTrail", "PutEventSelectors", "DeleteFlowLogs"}


def rule(event):
    if event.get("eventName") not in TAMPERING:
        return False
    principal = event.deep_get("userIdentity", "arn")
    return bool(principal) and get_counter(f"{SHARED_PREFIX}:{principal}") > 0


def title(event):
    principal = event.deep_get("userIdentity", "arn")
    return f"Logging cut by [{principal}] within an hour of a console login: {event.get('eventName')}"


def dedup(event):
    return event.deep_get("userIdentity", "arn")


def severity(event):
    return "MEDIUM" if event.get("errorCode") else "DEFAULT"


def alert_context(event):
    return {
        "principal": event.deep_get("userIdentity", "arn"),
        "call": event.get("eventName"),
        "error_code": event.get("errorCode"),
        "target": event.get("requestParameters"),
        "region": event.get("awsRegion"),
        "source_ip": event.get("sourceIPAddress"),
        "logins_within_the_hour": get_counter(f"{SHARED_PREFIX}:{event.deep_get('userIdentity', 'arn')}"),
    }

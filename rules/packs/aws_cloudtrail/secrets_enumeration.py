from panther_detection_helpers.caching import add_to_string_set, reset_string_set, set_key_expiration

THRESHOLD = 10
WINDOW_S = 3600


def rule(event):
    if event.get("eventSource") != "secretsmanager.amazonaws.com" or event.get("eventName") != "GetSecretValue":
        return False
    principal = event.deep_get("userIdentity", "arn")
    secret = event.deep_get("requestParameters", "secretId")
    if not principal or not secret or event.deep_get("userIdentity", "invokedBy"):
        return False

    key = f"{__name__}:{principal}"
    secrets = add_to_string_set(key, secret)
    if len(secrets) == 1:
        set_key_expiration(key, event.event_time_epoch() + WINDOW_S)
    if len(secrets) < THRESHOLD:
        return False
    reset_string_set(key)
    return True


def title(event):
    return f"{THRESHOLD} different secrets read by [{event.deep_get('userIdentity', 'arn')}] within an hour"


def dedup(event):
    return event.deep_get("userIdentity", "arn")


def alert_context(event):
    return {
        "principal": event.deep_get("userIdentity", "arn"),
        "access_key_id": event.deep_get("userIdentity", "accessKeyId"),
        "account": event.get("recipientAccountId"),
        "region": event.get("awsRegion"),
        "source_ip": event.get("sourceIPAddress"),
        "user_agent": event.get("userAgent"),
        "last_secret": event.deep_get("requestParameters", "secretId"),
    }

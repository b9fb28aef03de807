from panther_detection_helpers.caching import add_to_string_set, evaluate_threshold, get_string_set

THRESHOLD = 5
GAP_S = 600


def rule(event):
    if event.get("eventSource") != "ec2.amazonaws.com" or event.get("eventName") != "GetPasswordData":
        return False
    principal = event.deep_get("userIdentity", "arn")
    instance = event.deep_get("requestParameters", "instanceId")
    if not principal or not instance:
        return False

    # The console and Terraform poll for the password of one new instance: only the first request for each counts.
    key = f"{__name__}:{principal}"
    if instance in get_string_set(key):
        return False
    add_to_string_set(key, instance, event.event_time_epoch() + GAP_S)
    return evaluate_threshold(key, THRESHOLD, GAP_S)


def title(event):
    return f"Windows passwords of {THRESHOLD} instances requested by [{event.deep_get('userIdentity', 'arn')}]"


def dedup(event):
    return event.deep_get("userIdentity", "arn")


def alert_context(event):
    principal = event.deep_get("userIdentity", "arn")
    return {
        "principal": principal,
        "access_key_id": event.deep_get("userIdentity", "accessKeyId"),
        "instances": sorted(get_string_set(f"{__name__}:{principal}")),
        "error_code": event.get("errorCode"),
        "region": event.get("awsRegion"),
        "source_ip": event.get("sourceIPAddress"),
        "user_agent": event.get("userAgent"),
    }

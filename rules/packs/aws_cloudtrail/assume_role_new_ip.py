from panther_detection_helpers.caching import add_to_string_set, get_string_set

REMEMBER_S = 90 * 86400


def is_aws_service(address):
    return address.endswith("amazonaws.com") or address == "AWS Internal"


def rule(event):
    if event.get("eventSource") != "sts.amazonaws.com" or event.get("eventName") != "AssumeRole":
        return False
    role = event.deep_get("requestParameters", "roleArn")
    address = event.get("sourceIPAddress")
    if event.get("errorCode") or not role or not address or is_aws_service(address):
        return False

    key = f"{__name__}:{role}"
    known = get_string_set(key)
    # Known addresses are written too, so that the memory of a role in use does not run out.
    add_to_string_set(key, address, event.event_time_epoch() + REMEMBER_S)
    return bool(known) and address not in known


def title(event):
    role = event.deep_get("requestParameters", "roleArn")
    return f"Role [{role}] assumed from the new address [{event.get('sourceIPAddress')}]"


def dedup(event):
    return event.deep_get("requestParameters", "roleArn")


def alert_context(event):
    role = event.deep_get("requestParameters", "roleArn")
    return {
        "role": role,
        "session_name": event.deep_get("requestParameters", "roleSessionName"),
        "assumed_by": event.deep_get("userIdentity", "arn"),
        "source_ip": event.get("sourceIPAddress"),
        "user_agent": event.get("userAgent"),
        "known_addresses": sorted(get_string_set(f"{__name__}:{role}")),
    }

from panther_detection_helpers.caching import get_dictionary, put_dictionary

THRESHOLD = 4
WINDOW_S = 600


def rule(event):
    access_key = event.deep_get("userIdentity", "accessKeyId")
    region = event.get("awsRegion")
    # AWS Config, Security Hub and their like crawl every region on behalf of the account.
    if not access_key or not region or event.deep_get("userIdentity", "invokedBy"):
        return False

    key = f"{__name__}:{access_key}"
    now = int(event.event_time_epoch())
    # countersign: ignore[no-guard] any use of a key shows where it is
    last_uses = {name: time_s for name, time_s in get_dictionary(key).items() if now - time_s <= WINDOW_S}
    is_new = region not in last_uses
    # max(): a late event must not make a region look older than it is.
    last_uses[region] = max(now, last_uses.get(region, now))
    put_dictionary(key, last_uses, max(last_uses.values()) + WINDOW_S)
    return is_new and sum(abs(now - time_s) <= WINDOW_S for time_s in last_uses.values()) >= THRESHOLD


def title(event):
    access_key = event.deep_get("userIdentity", "accessKeyId")
    return f"Access key [{access_key}] used in {THRESHOLD} or more regions within 10 minutes"


def dedup(event):
    return event.deep_get("userIdentity", "accessKeyId")


def alert_context(event):
    access_key = event.deep_get("userIdentity", "accessKeyId")
    return {
        "access_key_id": access_key,
        "principal": event.deep_get("userIdentity", "arn"),
        "regions": sorted(get_dictionary(f"{__name__}:{access_key}")),
        "source_ip": event.get("sourceIPAddress"),
        "user_agent": event.get("userAgent"),
        "last_call": f"{event.get('eventSource')}:{event.get('eventName')}",
    }

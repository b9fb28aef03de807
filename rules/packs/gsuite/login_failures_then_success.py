from panther_detection_helpers.caching import get_counter, increment_counter, reset_counter

THRESHOLD = 5
GAP_S = 1800


def rule(event):
    if event.deep_get("id", "applicationName") != "login":
        return False
    user = event.deep_get("actor", "email")
    if not user:
        return False

    key = f"{__name__}:{user}"
    if event.get("name") == "login_failure":
        increment_counter(key, 1, event.event_time_epoch() + GAP_S)
        return False
    if event.get("name") != "login_success" or get_counter(key) < THRESHOLD:
        return False
    reset_counter(key)
    return True


def title(event):
    return f"[{event.deep_get('actor', 'email')}] signed in after at least {THRESHOLD} failed attempts"


def dedup(event):
    return event.deep_get("actor", "email")


def severity(event):
    return "HIGH" if event.deep_get("parameters", "is_suspicious") is True else "DEFAULT"


def alert_context(event):
    return {
        "user": event.deep_get("actor", "email"),
        "source_ip": event.get("ipAddress"),
        "login_type": event.deep_get("parameters", "login_type"),
        "challenge": event.deep_get("parameters", "login_challenge_method"),
        "is_suspicious": event.deep_get("parameters", "is_suspicious"),
    }

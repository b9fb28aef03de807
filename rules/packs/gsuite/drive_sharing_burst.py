from panther_detection_helpers.caching import add_to_string_set, get_string_set, set_key_expiration

THRESHOLD = 15
WINDOW_S = 3600


def rule(event):
    if event.deep_get("id", "applicationName") != "drive":
        return False
    if event.deep_get("parameters", "visibility_change") != "external":
        return False
    actor = event.deep_get("actor", "email")
    document = event.deep_get("parameters", "doc_id")
    if not actor or not document:
        return False

    key = f"{__name__}:{actor}"
    documents = add_to_string_set(key, document)
    if len(documents) == 1:
        set_key_expiration(key, event.event_time_epoch() + WINDOW_S)
    return len(documents) >= THRESHOLD


def title(event):
    actor = event.deep_get("actor", "email")
    return f"{THRESHOLD} or more documents shared outside by [{actor}] within an hour"


def dedup(event):
    return event.deep_get("actor", "email")


def alert_context(event):
    actor = event.deep_get("actor", "email")
    return {
        "actor": actor,
        "source_ip": event.get("ipAddress"),
        "documents": sorted(get_string_set(f"{__name__}:{actor}")),
        "last_title": event.deep_get("parameters", "doc_title"),
        "last_shared_with": event.deep_get("parameters", "target_user")
        or event.deep_get("parameters", "target_domain"),
        "last_visibility": event.deep_get("parameters", "visibility"),
    }

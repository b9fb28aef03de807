from panther_detection_helpers.caching import add_to_string_set, get_string_set, set_key_expiration

# They read the secrets of every namespace for a living.
CONTROL_PLANE = (
    "eks:",
    "system:apiserver",
    "system:kube-",
    "system:node:",
    "system:serviceaccount:kube-system:",
)
THRESHOLD = 5
WINDOW_S = 900


def rule(event):
    if event.deep_get("objectRef", "resource") != "secrets" or event.get("verb") not in ("get", "list"):
        return False
    user = event.deep_get("user", "username")
    namespace = event.deep_get("objectRef", "namespace")
    if not user or not namespace or user.startswith(CONTROL_PLANE):
        return False

    key = f"{__name__}:{user}"
    namespaces = add_to_string_set(key, namespace)
    if len(namespaces) == 1:
        set_key_expiration(key, event.event_time_epoch() + WINDOW_S)
    return len(namespaces) >= THRESHOLD


def title(event):
    user = event.deep_get("user", "username")
    return f"Secrets of {THRESHOLD} or more namespaces read by [{user}] within 15 minutes"


def dedup(event):
    return event.deep_get("user", "username")


def alert_context(event):
    user = event.deep_get("user", "username")
    return {
        "user": user,
        "groups": event.deep_get("user", "groups"),
        "namespaces": sorted(get_string_set(f"{__name__}:{user}")),
        "source_ips": event.get("sourceIPs"),
        "user_agent": event.get("userAgent"),
        "last_response": event.deep_get("responseStatus", "code"),
    }

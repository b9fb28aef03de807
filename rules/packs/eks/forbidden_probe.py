from panther_detection_helpers.caching import add_to_string_set, evaluate_threshold, get_string_set

THRESHOLD = 15
GAP_S = 300


def request_of(event):
    """What RBAC decides on: verb, namespace and resource, or the path of a request for no resource."""
    path = event.deep_get("requestURI", default="").split("?")[0]
    resource = event.deep_get("objectRef", "resource", default=path)
    return f"{event.get('verb')} {event.deep_get('objectRef', 'namespace', default='-')} {resource}"


def rule(event):
    user = event.deep_get("user", "username")
    # The internet knocks at every public endpoint as system:anonymous.
    if event.deep_get("responseStatus", "code") != 403 or not user or user == "system:anonymous":
        return False

    # A controller that lacks a right asks for the same thing for ever: only the first refusal of each counts.
    key = f"{__name__}:{user}"
    request = request_of(event)
    if request in get_string_set(key):
        return False
    add_to_string_set(key, request, event.event_time_epoch() + GAP_S)
    return evaluate_threshold(key, THRESHOLD, GAP_S)


def title(event):
    return f"{THRESHOLD} different requests refused to [{event.deep_get('user', 'username')}]"


def dedup(event):
    return event.deep_get("user", "username")


def alert_context(event):
    user = event.deep_get("user", "username")
    return {
        "user": user,
        "groups": event.deep_get("user", "groups"),
        "refused": sorted(get_string_set(f"{__name__}:{user}")),
        "source_ips": event.get("sourceIPs"),
        "user_agent": event.get("userAgent"),
    }

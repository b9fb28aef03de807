from panther_detection_helpers.caching import get_string_set, put_string_set

REMEMBER_S = 86400


def session_of(event):
    return event.deep_get("authenticationContext", "externalSessionId")


def rule(event):
    session = session_of(event)
    device = event.deep_get("debugContext", "debugData", "dtHash")
    network = event.deep_get("securityContext", "asNumber")
    # Okta writes "unknown" for events outside any session.
    if not session or session == "unknown" or not device or not network:
        return False

    device, network = f"device {device}", f"AS{network}"
    key = f"{__name__}:{session}"
    # countersign: ignore[no-guard] any event of a session shows its device
    known = get_string_set(key)
    put_string_set(key, [*known, device, network], event.event_time_epoch() + REMEMBER_S)
    # Either alone is ordinary: a phone leaves the Wi-Fi, a browser is updated.
    return bool(known) and device not in known and network not in known


def title(event):
    user = event.deep_get("actor", "alternateId", default="unknown user")
    return f"Okta session of [{user}] moved to another device and network"


def dedup(event):
    return session_of(event)


def alert_context(event):
    return {
        "user": event.deep_get("actor", "alternateId"),
        "session": session_of(event),
        "event_type": event.get("eventType"),
        "source_ip": event.deep_get("client", "ipAddress"),
        "network": event.deep_get("securityContext", "asOrg"),
        "user_agent": event.deep_get("client", "userAgent", "rawUserAgent"),
        "seen_in_session": sorted(get_string_set(f"{__name__}:{session_of(event)}")),
    }

from panther_detection_helpers.caching import get_counter, increment_counter

RESETS = {"user.account.reset_password", "user.mfa.factor.reset_all"}
GRANTS = {"user.account.privilege.grant", "group.privilege.grant"}
GAP_S = 3600


def key_of(event, what):
    """Both keys of an actor carry the {actor} tag, so that one shard holds them and one evaluation may use both."""
    return f"{__name__}:{{{event.deep_get('actor', 'id')}}}:{what}"


def target_user(event):
    """Whose credentials are reset, or who is granted the privilege."""
    for target in event.get("target") or []:
        if target.get("type") == "User":
            return target
    return {}


def rule(event):
    kind = event.get("eventType")
    if kind not in RESETS and kind not in GRANTS:
        return False
    actor = event.deep_get("actor", "id")
    # Okta's own automation resets and grants all day under one name.
    if not actor or event.deep_get("actor", "alternateId") == "system@okta.com":
        return False
    if event.deep_get("outcome", "result") != "SUCCESS":
        return False

    expiry_s = event.event_time_epoch() + GAP_S
    if kind in GRANTS:
        increment_counter(key_of(event, "grants"), 1, expiry_s)
        return get_counter(key_of(event, "resets")) > 0
    if target_user(event).get("id") not in (None, actor):
        increment_counter(key_of(event, "resets"), 1, expiry_s)
    return False


def title(event):
    actor = event.deep_get("actor", "alternateId", default="unknown actor")
    return f"[{actor}] reset another user's credentials, then granted admin rights"


def dedup(event):
    return event.deep_get("actor", "id")


def severity(event):
    return "CRITICAL" if get_counter(key_of(event, "grants")) > 1 else "DEFAULT"


def alert_context(event):
    return {
        "actor": event.deep_get("actor", "alternateId"),
        "granted_to": target_user(event).get("alternateId"),
        "privilege": event.deep_get("debugContext", "debugData", "privilegeGranted"),
        "resets_before": get_counter(key_of(event, "resets")),
        "grants": get_counter(key_of(event, "grants")),
        "source_ip": event.deep_get("client", "ipAddress"),
        "user_agent": event.deep_get("client", "userAgent", "rawUserAgent"),
    }

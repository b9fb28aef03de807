from panther_detection_helpers.caching import add_to_string_set, reset_string_set, set_key_expiration

THRESHOLD = 20
WINDOW_S = 3600


def rule(event):
    if event.get("action") != "git.clone":
        return False
    actor = event.get("actor")
    repo = event.get("repo")
    if not actor or not repo or actor.endswith("[bot]") or event.get("repository_public") is True:
        return False

    key = f"{__name__}:{actor}"
    repos = add_to_string_set(key, repo)
    if len(repos) == 1:
        set_key_expiration(key, event.event_time_epoch() + WINDOW_S)
    if len(repos) < THRESHOLD:
        return False
    reset_string_set(key)
    return True


def title(event):
    return f"{THRESHOLD} private repositories cloned by [{event.get('actor')}] within an hour"


def dedup(event):
    return event.get("actor")


def alert_context(event):
    return {
        "actor": event.get("actor"),
        "source_ip": event.get("actor_ip"),
        "organisation": event.get("org"),
        "last_repo": event.get("repo"),
        "credential": event.get("programmatic_access_type"),
        "hashed_token": event.get("hashed_token"),
        "user_agent": event.get("user_agent"),
    }

from panther_detection_helpers.caching import get_string_set, put_string_set

ACCESSES = {"git.clone", "git.fetch", "git.push"}
HISTORY = 3
REMEMBER_S = 90 * 86400


def rule(event):
    if event.get("action") not in ACCESSES:
        return False
    actor = event.get("actor")
    repo = event.get("repo")
    if not actor or not repo or actor.endswith("[bot]") or event.get("repository_public") is True:
        return False

    key = f"{__name__}:{actor}"
    known = get_string_set(key)
    # Known repositories are written too, so that the memory of an active developer does not run out.
    put_string_set(key, [*known, repo], event.event_time_epoch() + REMEMBER_S)
    return len(known) >= HISTORY and repo not in known


def title(event):
    return f"First access of [{event.get('actor')}] to the repository [{event.get('repo')}]"


def dedup(event):
    return event.get("actor")


def alert_context(event):
    return {
        "actor": event.get("actor"),
        "repo": event.get("repo"),
        "action": event.get("action"),
        "source_ip": event.get("actor_ip"),
        "credential": event.get("programmatic_access_type"),
        "user_agent": event.get("user_agent"),
        "known_repos": len(get_string_set(f"{__name__}:{event.get('actor')}")),
    }

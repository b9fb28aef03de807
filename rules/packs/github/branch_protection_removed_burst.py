from panther_detection_helpers.caching import get_counter, increment_counter

REMOVALS = {"protected_branch.destroy", "repository_ruleset.destroy"}
THRESHOLD = 3
GAP_S = 1800


def rule(event):
    actor = event.get("actor")
    if event.get("action") not in REMOVALS or not actor:
        return False
    return increment_counter(f"{__name__}:{actor}", 1, event.event_time_epoch() + GAP_S) >= THRESHOLD


def title(event):
    return f"Branch protection removed {THRESHOLD} or more times by [{event.get('actor')}]"


def dedup(event):
    return event.get("actor")


def alert_context(event):
    return {
        "actor": event.get("actor"),
        "source_ip": event.get("actor_ip"),
        "last_repo": event.get("repo"),
        "removals": get_counter(f"{__name__}:{event.get('actor')}"),
        "user_agent": event.get("user_agent"),
    }

from panther_detection_helpers.caching import put_string_set

# Shared with AWS.CloudTrail.NewUser.PrivilegedAction, which asks for the account's age by it.
SHARED_PREFIX = "aws.new_user"
NEW_FOR_S = 3 * 86400


def rule(event):
    if event.get("eventSource") != "iam.amazonaws.com" or event.get("eventName") != "CreateUser":
        return False
    account = event.deep_get("userIdentity", "accountId")
    user = event.deep_get("requestParameters", "userName")
    if account and user and not event.get("errorCode"):
        creator = event.deep_get("userIdentity", "arn", default="unknown")
        put_string_set(f"{SHARED_PREFIX}:{account}:{user}", [creator], event.event_time_epoch() + NEW_FOR_S)
    return False


def title(event):
    return f"IAM user [{event.deep_get('requestParameters', 'userName')}] created"


def dedup(event):
    return event.deep_get("requestParameters", "userName", default="")


def alert_context(event):
    return {
        "user": event.deep_get("requestParameters", "userName"),
        "created_by": event.deep_get("userIdentity", "arn"),
    }

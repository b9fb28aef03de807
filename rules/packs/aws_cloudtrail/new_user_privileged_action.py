from panther_detection_helpers.caching import check_account_age, get_string_set

# Shared with AWS.CloudTrail.NewUser.Marker, which writes it for three days.
SHARED_PREFIX = "aws.new_user"
PRIVILEGED = {
    "AddUserToGroup",
    "AttachGroupPolicy",
    "AttachRolePolicy",
    "AttachUserPolicy",
    "CreateAccessKey",
    "CreateLoginProfile",
    "CreatePolicyVersion",
    "CreateUser",
    "PutGroupPolicy",
    "PutRolePolicy",
    "PutUserPolicy",
    "SetDefaultPolicyVersion",
    "UpdateAssumeRolePolicy",
    "UpdateLoginProfile",
}


def user_of(event):
    """account:name of the IAM user who calls: names alone repeat between accounts."""
    return f"{event.deep_get('userIdentity', 'accountId')}:{event.deep_get('userIdentity', 'userName')}"


def rule(event):
    if event.get("eventSource") != "iam.amazonaws.com" or event.get("eventName") not in PRIVILEGED:
        return False
    if event.get("errorCode") or event.deep_get("userIdentity", "type") != "IAMUser":
        return False
    if not event.deep_get("userIdentity", "accountId") or not event.deep_get("userIdentity", "userName"):
        return False
    return check_account_age(f"{SHARED_PREFIX}:{user_of(event)}")


def title(event):
    user = event.deep_get("userIdentity", "userName")
    return f"IAM user [{user}], created within 3 days, called {event.get('eventName')}"


def dedup(event):
    return user_of(event)


def alert_context(event):
    return {
        "user": event.deep_get("userIdentity", "arn"),
        "created_by": sorted(get_string_set(f"{SHARED_PREFIX}:{user_of(event)}")),
        "call": event.get("eventName"),
        "target": event.get("requestParameters"),
        "source_ip": event.get("sourceIPAddress"),
        "user_agent": event.get("userAgent"),
    }

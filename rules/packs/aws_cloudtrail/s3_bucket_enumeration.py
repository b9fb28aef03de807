# What somebody looks at who does not know yet which bucket is worth something.
PROBES = {"GetBucketAcl", "GetBucketPolicy", "GetBucketPolicyStatus", "ListObjects", "ListObjectsV2"}


def rule(event):
    if event.get("eventSource") != "s3.amazonaws.com" or event.get("eventName") not in PROBES:
        return False
    if event.deep_get("userIdentity", "invokedBy"):
        return False
    return bool(event.deep_get("requestParameters", "bucketName") and event.deep_get("userIdentity", "arn"))


def unique(event):
    return event.deep_get("requestParameters", "bucketName")


def title(event):
    return f"S3 buckets enumerated by [{event.deep_get('userIdentity', 'arn')}]"


def dedup(event):
    return event.deep_get("userIdentity", "arn")


def alert_context(event):
    return {
        "principal": event.deep_get("userIdentity", "arn"),
        "access_key_id": event.deep_get("userIdentity", "accessKeyId"),
        "first_bucket": event.deep_get("requestParameters", "bucketName"),
        "source_ip": event.get("sourceIPAddress"),
        "user_agent": event.get("userAgent"),
    }

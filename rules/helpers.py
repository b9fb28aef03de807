"""The caching functions that rule authors call (panther_detection_helpers.caching), on the state of the evaluation that runs.

Signatures are the public library's; semantics are PANTHER_FORMAT 2.4, carried out by state.py. `force_ttl_check` is
accepted everywhere and changes nothing: an expired key is absent at once.

Each asks `(RUNNING.evaluation or current())`: nearly all calls are within an evaluation, and current() says what is wrong with
the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from rules.evaluation import RUNNING, current

Seconds = Any
"""int, float, numeric str, None, or anything else, which is refused (rules/state.py)."""


def get_counter(key: str, force_ttl_check: bool = False) -> int:
    """The counter; 0 where there is none."""
    return (RUNNING.evaluation or current()).reach("get_counter", key).get_counter(key)


def increment_counter(key: str, val: int = 1, epoch_seconds: Seconds = None) -> int:
    """Add to the counter and return its new value."""
    return (RUNNING.evaluation or current()).reach("increment_counter", key).increment_counter(key, val, epoch_seconds)


def reset_counter(key: str) -> None:
    """Forget the counter; the key's expiry stays."""
    (RUNNING.evaluation or current()).reach("reset_counter", key).reset_counter(key)


def set_key_expiration(key: str, epoch_seconds: Seconds) -> None:
    """When the key expires: an epoch time, or seconds from now if below 1e9."""
    (RUNNING.evaluation or current()).reach("set_key_expiration", key).set_key_expiration(key, epoch_seconds)


def get_string_set(key: str, force_ttl_check: bool = False) -> set[str]:
    """A copy of the set; empty where there is none."""
    return (RUNNING.evaluation or current()).reach("get_string_set", key).get_string_set(key)


def put_string_set(key: str, val: Iterable[str], epoch_seconds: Seconds = None) -> set[str]:
    """Replace everything under the key by this set."""
    return (RUNNING.evaluation or current()).reach("put_string_set", key).put_string_set(key, val, epoch_seconds)


def add_to_string_set(key: str, val: str | Iterable[str], epoch_seconds: Seconds = None) -> set[str]:
    """Add one text or several; returns the whole set."""
    return (RUNNING.evaluation or current()).reach("add_to_string_set", key).add_to_string_set(key, val, epoch_seconds)


def remove_from_string_set(key: str, val: str | Iterable[str], epoch_seconds: Seconds = None) -> set[str]:
    """Remove one text or several; returns what is left."""
    return (RUNNING.evaluation or current()).reach("remove_from_string_set", key).remove_from_string_set(key, val, epoch_seconds)


def reset_string_set(key: str) -> None:
    """Forget the set; the key's expiry stays."""
    (RUNNING.evaluation or current()).reach("reset_string_set", key).reset_string_set(key)


def get_dictionary(key: str, force_ttl_check: bool = False) -> dict[str, Any]:
    """A fresh copy of the dictionary; empty where there is none."""
    return (RUNNING.evaluation or current()).reach("get_dictionary", key).get_dictionary(key)


def put_dictionary(key: str, val: Mapping[str, Any], epoch_seconds: Seconds = None) -> None:
    """Replace everything under the key by this dictionary; it is kept as JSON text."""
    (RUNNING.evaluation or current()).reach("put_dictionary", key).put_dictionary(key, val, epoch_seconds)


def evaluate_threshold(key: str, threshold: int = 10, expiry_seconds: Seconds = 3600) -> bool:
    """Count, with the expiry renewed on every call (gap-based); at the threshold reset and say True."""
    state = (RUNNING.evaluation or current()).reach("evaluate_threshold", key)
    if state.increment_counter(key, 1, expiry_seconds) < threshold:
        return False
    state.reset_counter(key)
    return True


def check_account_age(key: Any, force_ttl_check: bool = False) -> bool:
    """Whether the key holds a set; False for what is no key."""
    if not isinstance(key, str) or not key:
        return False
    return bool(get_string_set(key))


def kv_table(*_: object, **__: object) -> NoReturn:
    """Not supported: there is no table here."""
    raise NotImplementedError("kv_table: not supported here, there is no table: use the caching helpers")


def ttl_expired(*_: object, **__: object) -> NoReturn:
    """Not supported: expired keys are never seen."""
    raise NotImplementedError("ttl_expired: not supported here: an expired key reads as absent")


CACHING = {
    function.__name__: function
    for function in (
        get_counter, increment_counter, reset_counter, set_key_expiration, get_string_set, put_string_set,
        add_to_string_set, remove_from_string_set, reset_string_set, get_dictionary, put_dictionary,
        evaluate_threshold, check_account_age, kv_table, ttl_expired,
    )
}  # fmt: skip
"""What `panther_detection_helpers.caching` holds. The older `panther_oss_helpers` has the same names; its shorter
signatures are prefixes of these."""

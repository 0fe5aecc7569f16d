"""The options of ``kvs.session``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyramid.exceptions import ConfigurationError

from ..messages import closest
from ..settings import (
    InvalidOption,
    Option,
    any_string,
    flag,
    names,
    one_of,
    optional,
    positive_integer,
    seconds,
    string,
)
from ..stores import STORE_OPTIONS

SETTING = "kvs.session"

#: The value of ``cookie_max_age`` for a cookie that ends with the browser.
BROWSER_SESSION = "session"
_MAX_AGE = 'a number of seconds above 0, "session", or null'


def _max_age(value: Any) -> float | str | None:
    if value is None or value == BROWSER_SESSION:
        return value  # type: ignore[no-any-return]
    try:
        return seconds(value)
    except InvalidOption:
        raise InvalidOption(_MAX_AGE, closest(value, [BROWSER_SESSION])) from None


OPTIONS: dict[str, Option] = {
    **STORE_OPTIONS,
    "key_prefix": Option(any_string, "session::"),
    "key_name": Option(names, "session_id", other_words=("cookie_name", "header_name")),
    "session_type": Option(one_of("cookie", "header"), "cookie"),
    "cookie_httponly": Option(flag, True),
    "cookie_samesite": Option(one_of("Lax", "Strict", "None", None), "Lax"),
    "cookie_secure": Option(optional(flag), None),
    "cookie_path": Option(string, "/"),
    "cookie_domain": Option(optional(string), None),
    "cookie_max_age": Option(_max_age, None),
    "cookie_refresh": Option(optional(seconds), None, other_words=("reissue_time",)),
    "remember_ttl": Option(optional(seconds), None),
    "absolute_ttl": Option(optional(seconds), None),
    "max_bytes": Option(positive_integer, 1024 * 1024),
    "on_conflict": Option(one_of("merge", "overwrite", "raise"), "merge"),
    "hash_keys": Option(one_of(False, "accept", "migrate", True), False),
}


def refuse_cookie_options(setting: str, written: Mapping[str, Any]) -> None:
    """Refuse options that have no effect on header sessions, even if they have their defaults.

    :raises ConfigurationError: the message names them.
    """
    found = sorted(key for key in written if key.startswith("cookie_") or key == "remember_ttl")
    if found:
        raise ConfigurationError(
            f"{setting}: {', '.join(found)}: remove {'it' if len(found) == 1 else 'them'}, because "
            'header sessions ("session_type": "header") have no cookie'
        )

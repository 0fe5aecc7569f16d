"""The options of ``kvs.session``."""

from __future__ import annotations

from ..settings import (
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

OPTIONS: dict[str, Option] = {
    **STORE_OPTIONS,
    "key_prefix": Option(any_string, "session::"),
    "key_name": Option(names, "session_id"),
    "session_type": Option(one_of("cookie", "header"), "cookie"),
    "cookie_httponly": Option(flag, True),
    "cookie_samesite": Option(one_of("Lax", "Strict", "None", None), "Lax"),
    "cookie_secure": Option(optional(flag), None),
    "cookie_path": Option(string, "/"),
    "cookie_domain": Option(optional(string), None),
    "cookie_max_age": Option(optional(seconds), None),
    "absolute_ttl": Option(optional(seconds), None),
    "max_bytes": Option(positive_integer, 1024 * 1024),
    "on_conflict": Option(one_of("merge", "overwrite", "raise"), "merge"),
    "hash_keys": Option(one_of(False, "accept", "migrate", True), False),
}

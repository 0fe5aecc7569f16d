"""The options of ``kvs.cache``."""

from __future__ import annotations

from ..settings import Option, any_string, one_of
from ..stores import STORE_OPTIONS

SETTING = "kvs.cache"

OPTIONS: dict[str, Option] = {
    **STORE_OPTIONS,
    "key_prefix": Option(any_string, "cache::"),
    "on_error": Option(one_of("miss", "raise"), "miss"),
}

"""The options of ``kvs.perlsess``."""

from __future__ import annotations

import re
from typing import Any

from ..settings import (
    InvalidOption,
    Option,
    any_string,
    flag,
    one_of,
    optional,
    pattern,
    positive_integer,
    string,
)
from ..storable.format import check_encoding
from ..stores import STORE_OPTIONS
from .formats import FORMATS, MAX_BYTES

SETTING = "kvs.perlsess"


def text_codec(value: Any) -> str:
    try:
        check_encoding(string(value))
    except (ValueError, InvalidOption):
        raise InvalidOption(
            "the name of one of Python's text codecs, for example 'latin-1'"
        ) from None
    return string(value)


def key_format(value: Any) -> str:
    parts = value.split("{id}") if isinstance(value, str) else []
    if len(parts) != 2 or re.search("[{}]", "".join(parts)):
        raise InvalidOption("a string that contains {id} once, for example 'session:{id}'")
    return string(value)


OPTIONS: dict[str, Option] = {
    **STORE_OPTIONS,
    "codec": STORE_OPTIONS["codec"]._replace(default="storable"),
    "key_prefix": Option(any_string, "perlsess::"),
    "cookie_name": Option(string, "session_id"),
    "encoding": Option(optional(text_codec), "utf-8"),
    "format": Option(one_of(*FORMATS), "auto"),
    "key_format": Option(key_format, "{id}"),
    "id_pattern": Option(pattern, "[A-Za-z0-9_.~=+/-]{1,128}"),
    "max_bytes": Option(positive_integer, MAX_BYTES),
    "writable": Option(flag, False),
    "write_text": Option(one_of("characters", "bytes"), "characters"),
}

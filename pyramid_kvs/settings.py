"""The ``kvs.*`` settings: JSON text or objects, checked against one table.

A failure is a ``ConfigurationError`` that names the setting, the key, what was found, what is
allowed, and the closest match. Secrets, passwords and credentials in URLs are not shown.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pyramid.exceptions import ConfigurationError

from ._storable_format import check_encoding
from .kvs import canonical_name, closest
from .perl_formats import FORMATS, MAX_BYTES

log = logging.getLogger(__name__)

REQUIRED: Any = object()
METHODS = (
    *("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"),
    *("PROPFIND", "PROPPATCH", "REPORT"),
)
Check = Callable[[Any], Any]


class Refused(ValueError):
    """Raised by a check; its text says what is allowed."""


class Option(NamedTuple):
    """One key of a setting: its check, its default, and whether messages may show its value."""

    check: Check
    default: Any = REQUIRED
    secret: bool = False


# -- checks ----------------------------------------------------------------------------------


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Refused("a text that is not empty")
    return value


def any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("a text")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Refused("true or false")
    return value


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Refused("an object, for example {}")
    return dict(value)


def seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused("a number of seconds above 0")
    if not 0 < value <= sys.float_info.max:
        raise Refused("a number of seconds above 0")
    return value


def whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused("a whole number from 1")
    return value


def window(value: Any) -> float:
    expected = "a number of seconds from 0.001 to 1000000000"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(expected)
    if not 0.001 <= value <= 10**9:
        raise Refused(expected)
    return value


def quota(value: Any) -> int:
    number = whole_number(value)
    if number >= 10**15:  # RFC 9651 has integers of up to 15 digits
        raise Refused("a whole number from 1 to 999999999999999")
    return number


def policy_name(value: Any) -> str:
    name = text(value)
    if len(name) > 64 or not (name.isascii() and name.isprintable()):
        raise Refused("a text of at most 64 printable ASCII characters")
    return name


def error_status(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 400 <= value <= 599:
        raise Refused("an HTTP status from 400 to 599")
    return value


def secrets(value: Any) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not listed:
        raise Refused("a text, or a list of texts, newest first")
    if not all(isinstance(item, str) and item for item in listed):
        raise Refused("a text, or a list of texts, newest first")
    return list(listed)


def names(value: Any) -> str | list[str]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Sequence) and value and all(isinstance(v, str) and v for v in value):
        return list(value)
    raise Refused("a name, or a list of names")


def http_methods(value: Any) -> list[str]:
    found = names(value)
    methods = [name.upper() for name in ([found] if isinstance(found, str) else found)]
    for name in methods:
        meant = closest(name, METHODS)
        if not re.fullmatch(r"[A-Z-]+", name) or (meant and name not in METHODS):
            raise Refused(f'the name of an HTTP method, such as "POST", or a list of them{meant}')
    return methods


def text_codec(value: Any) -> str:
    try:
        check_encoding(text(value))
    except (ValueError, Refused):
        raise Refused("the name of a text codec of Python, for example 'latin-1'") from None
    return text(value)


def key_format(value: Any) -> str:
    parts = value.split("{id}") if isinstance(value, str) else []
    if len(parts) != 2 or re.search("[{}]", "".join(parts)):
        raise Refused("a text with one {id} in it, for example 'session:{id}'")
    return text(value)


def pattern(value: Any) -> str:
    try:
        return re.compile(text(value)).pattern
    except re.error as error:
        raise Refused(f"a regular expression of Python ({error})") from None


def one_of(*allowed: Any) -> Check:
    def check(value: Any) -> Any:
        for choice in allowed:
            if type(value) is type(choice) and value == choice:
                return value
        choices = ", ".join(json.dumps(choice) for choice in allowed)
        raise Refused(f"one of {choices}{closest(value, allowed)}")

    return check


def list_of(*allowed: str) -> Check:
    def check(value: Any) -> list[str]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise Refused(f"a list of {', '.join(json.dumps(choice) for choice in allowed)}")
        return [one_of(*allowed)(item) for item in value]

    return check


def optional(check: Check) -> Check:
    def check_or_none(value: Any) -> Any:
        if value is None:
            return None
        try:
            return check(value)
        except Refused as error:
            raise Refused(f"{error}, or null") from None

    return check_or_none


# -- the table -------------------------------------------------------------------------------

STORE: dict[str, Option] = {
    "kvs": Option(optional(text), None),
    "type": Option(optional(text), None),
    "kvs_kwargs": Option(mapping, {}, secret=True),
    "codec": Option(text, "json"),
    "fallback_codec": Option(optional(text), None),
    "secret": Option(optional(secrets), None, secret=True),
    "ttl": Option(optional(seconds), 300),
}

#: Every setting, with its keys. ``kvs`` and ``type`` are one key; ``read`` requires either.
TABLE: dict[str, dict[str, Option]] = {
    "kvs.cache": {
        **STORE,
        "key_prefix": Option(any_text, "cache::"),
        "on_error": Option(one_of("miss", "raise"), "miss"),
    },
    "kvs.session": {
        **STORE,
        "key_prefix": Option(any_text, "session::"),
        "key_name": Option(names, "session_id"),
        "session_type": Option(one_of("cookie", "header"), "cookie"),
        "cookie_httponly": Option(flag, True),
        "cookie_samesite": Option(one_of("Lax", "Strict", "None", None), "Lax"),
        "cookie_secure": Option(optional(flag), None),
        "cookie_path": Option(text, "/"),
        "cookie_domain": Option(optional(text), None),
        "cookie_max_age": Option(optional(seconds), None),
        "absolute_ttl": Option(optional(seconds), None),
        "max_bytes": Option(whole_number, 1024 * 1024),
        "on_conflict": Option(one_of("merge", "overwrite", "raise"), "merge"),
        "hash_keys": Option(one_of(False, "accept", "migrate", True), False),
    },
    "kvs.ratelimit": {
        "window": Option(window, 1),
        "limit": Option(quota, 15),
        "key_suffix": Option(text, "::ratelimit"),
        "strategy": Option(one_of("fixed-window", "sliding-window", "gcra"), "fixed-window"),
        "burst": Option(optional(quota), None),
        "by": Option(text, "session"),
        "unknown": Option(one_of("address", "session", "allow"), "address"),
        "name": Option(optional(policy_name), None),
        "cost": Option(quota, 1),
        "methods": Option(optional(http_methods), None),
        "on_error": Option(one_of("allow", "deny", "memory"), "allow"),
        "headers": Option(list_of("x", "ietf"), ["x", "ietf"]),
        "status": Option(error_status, 429),
        "kvs": Option(optional(text), None),
        "type": Option(optional(text), None),
        "kvs_kwargs": Option(mapping, {}, secret=True),
        "key_prefix": Option(any_text, "ratelimit::"),
    },
    "kvs.perlsess": {
        **STORE,
        "codec": Option(text, "storable"),
        "key_prefix": Option(any_text, "perlsess::"),
        "cookie_name": Option(text, "session_id"),
        "encoding": Option(optional(text_codec), "utf-8"),
        "format": Option(one_of(*FORMATS), "auto"),
        "key_format": Option(key_format, "{id}"),
        "id_pattern": Option(pattern, "[A-Za-z0-9_=+/-]{1,128}"),
        "max_bytes": Option(whole_number, MAX_BYTES),
        "writable": Option(flag, False),
        "write_text": Option(one_of("characters", "bytes"), "characters"),
    },
}


# -- reading ---------------------------------------------------------------------------------


def is_set(settings: Mapping[str, Any], name: str) -> bool:
    """Return whether a setting is there; an empty one or ``null`` is as if absent."""
    value = settings.get(name)
    if isinstance(value, str):
        return value.strip() not in ("", "null")
    return value is not None


def parse(name: str, value: Any) -> Any:
    """Return the object of a setting: of JSON text, or a copy of what was set from Python.

    :raises ConfigurationError: the text is not JSON, or has a key twice.
    """
    if not isinstance(value, str):
        return _copied(value)
    try:
        return json.loads(value, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{name}: not valid JSON: {error.msg} at line {error.lineno} column {error.colno}"
            + _json_hint(value)
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not valid JSON: {error}") from None


def read(name: str, value: Any) -> dict[str, Any]:
    """Return the checked options of a setting, defaults filled in.

    :param name: of the setting, as in :data:`TABLE`.
    :param value: JSON text or an object.
    :raises ConfigurationError: see the module.
    """
    return check_options(name, parse(name, value), TABLE[name])


def check_options(name: str, value: Any, table: Mapping[str, Option]) -> dict[str, Any]:
    """Return ``value``, an object, checked against the rows of a table."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f'{name}: found {show(value)}, expected an object, for example {{"kvs": "memory"}}'
        )
    for key in value:
        if key not in table:
            raise ConfigurationError(
                f"{name}: unknown key {key!r} (known: {', '.join(sorted(table))}"
                f"{closest(key, table)})"
            )
    options = {key: _checked(name, key, option, value) for key, option in table.items()}
    return _one_driver_key(name, options) if "type" in table else options


def _checked(name: str, key: str, option: Option, value: Mapping[str, Any]) -> Any:
    if key not in value:
        if option.default is REQUIRED:
            raise ConfigurationError(f"{name}: {key!r} is missing")
        return _copied(option.default)
    try:
        return option.check(value[key])
    except Refused as error:
        found = "a value that is not shown" if option.secret else show(value[key])
        raise ConfigurationError(f"{name}: {key}: found {found}, expected {error}") from None


def _copied(value: Any) -> Any:
    """Copy the containers only: an SSL context among ``kvs_kwargs`` has no copy."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value


def _one_driver_key(name: str, options: dict[str, Any]) -> dict[str, Any]:
    kvs, alias = options["kvs"], options.pop("type")
    if None not in (kvs, alias) and canonical_name(kvs) != canonical_name(alias):
        raise ConfigurationError(
            f"{name}: 'kvs' is {kvs!r} and 'type' is {alias!r}; they mean the same: keep one"
        )
    options["kvs"] = kvs if kvs is not None else alias
    return options


def check_names(settings: Mapping[str, Any]) -> None:
    """Refuse a ``kvs.*`` setting that looks like a misspelt one; warn about any other.

    :raises ConfigurationError: the name is close to that of a setting.
    """
    for name in settings:
        if not name.startswith("kvs.") or name in TABLE:
            continue
        close = difflib.get_close_matches(name, TABLE, 1, 0.75)
        if close:
            raise ConfigurationError(
                f"unknown setting {name!r} (known: {', '.join(sorted(TABLE))}; "
                f"did you mean {close[0]!r}?)"
            )
        log.warning("setting %r means nothing to pyramid_kvs", name)


# -- messages --------------------------------------------------------------------------------

_SECRET_KEY = re.compile(r"pass|secret|token|credential", re.IGNORECASE)
#: Up to the last "@": in a password that nobody percent-encoded stand "@", "/" and spaces.
_URL_CREDENTIALS = re.compile(r"(?<=://).*@", re.DOTALL)
#: Of a URL's query, or of libpq's ``key=value`` pairs.
_PASSWORD = re.compile(r"(\w*pass\w*\s*=\s*)('(?:[^'\\]|\\.)*'?|[^&\s]*)", re.IGNORECASE)


def show(value: Any) -> str:
    """Return a value as a message may show it: short, without passwords, secrets or tokens."""
    shown = json.dumps(_redacted(value), default=repr, ensure_ascii=False)
    return shown if len(shown) <= 120 else shown[:117] + "..."


def without_credentials(message: str) -> str:
    """Return a text, of one URL at most, with its user and passwords masked."""
    return _PASSWORD.sub(r"\1***", _URL_CREDENTIALS.sub("***@", message))


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): "***" if _SECRET_KEY.search(str(key)) else _redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redacted(item) for item in value]
    return without_credentials(value) if isinstance(value, str) else value


def _json_hint(value: str) -> str:
    if "'" in value and '"' not in value:
        return " (JSON texts stand in double quotes)"
    if re.search(r",\s*[}\]]", value):
        return " (JSON allows no comma before a closing bracket)"
    if re.search(r"\b(True|False|None)\b", value):
        return " (JSON writes true, false and null)"
    return ""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Refused(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found

"""The ``kvs.*`` settings: JSON or objects, checked against a table of the feature's options.

A failure is a ``ConfigurationError`` that names the setting, the key, what was found, what is
allowed, and the closest match. It shows no secret, no password and no credentials of a URL.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pyramid.exceptions import ConfigurationError

from .messages import closest, quoted, show, unknown_name

log = logging.getLogger("pyramid_kvs.settings")

REQUIRED: Any = object()
Check = Callable[[Any], Any]


class InvalidOption(ValueError):
    """Raised by a check; the message says what is allowed.

    :param hint: the closest match, as part of a message.
    """

    def __init__(self, allowed: str, hint: str = "") -> None:
        super().__init__(allowed + hint)
        self.allowed = allowed
        self.hint = hint


class Option(NamedTuple):
    """One key of a setting: its check, its default, and whether messages must hide its value."""

    check: Check
    default: Any = REQUIRED
    secret: bool = False
    #: What Pyramid's own sessions and other libraries call the key, in lower case.
    other_words: tuple[str, ...] = ()


# -- checks ----------------------------------------------------------------------------------


def string(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidOption("a non-empty string")
    return value


def any_string(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidOption("a string")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidOption("true or false")
    return value


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidOption("an object, for example {}")
    return dict(value)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def seconds(value: Any) -> float:
    if not is_number(value) or not 0 < value <= sys.float_info.max:
        raise InvalidOption("a number of seconds above 0")
    return value  # type: ignore[no-any-return]


def positive_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption("a positive integer")
    return value


def strings(value: Any) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if not (isinstance(listed, Sequence) and _are_strings(listed)):
        raise InvalidOption("a string, or a list of strings, newest first")
    return list(listed)


def names(value: Any) -> str | list[str]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Sequence) and _are_strings(value):
        return list(value)
    raise InvalidOption("a name, or a list of names")


def _are_strings(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) and value for value in values)


def pattern(value: Any) -> str:
    try:
        return re.compile(string(value)).pattern
    except re.error as error:
        raise InvalidOption(f"a Python regular expression ({error})") from None


def one_of(*allowed: Any) -> Check:
    def check(value: Any) -> Any:
        for choice in allowed:
            if type(value) is type(choice) and value == choice:
                return value
        choices = ", ".join(json.dumps(choice) for choice in allowed)
        raise InvalidOption(f"one of {choices}", closest(value, allowed))

    return check


def list_of(*allowed: str) -> Check:
    def check(value: Any) -> list[str]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InvalidOption(f"a list of {', '.join(json.dumps(choice) for choice in allowed)}")
        return [one_of(*allowed)(item) for item in value]

    return check


def optional(check: Check) -> Check:
    def check_or_none(value: Any) -> Any:
        if value is None:
            return None
        try:
            return check(value)
        except InvalidOption as error:
            raise InvalidOption(f"{error.allowed}, or null", error.hint) from None

    return check_or_none


# -- reading ---------------------------------------------------------------------------------


def is_set(settings: Mapping[str, Any], name: str) -> bool:
    """Return whether a setting is present; an empty one or ``null`` counts as absent."""
    value = settings.get(name)
    if isinstance(value, str):
        return value.strip() not in ("", "null")
    return value is not None


def check_included(
    settings: Mapping[str, Any], known: Iterable[str], included: Collection[str]
) -> None:
    """Refuse a setting that was set after the include, whose feature would be off in silence.

    :raises ConfigurationError: a known setting is set, but its feature is not included.
    """
    for name in known:
        if name not in included and is_set(settings, name):
            raise ConfigurationError(
                f"{name} was set after pyramid_kvs was included, and would have no effect: set it "
                "earlier, or replace pyramid.includes = pyramid_kvs by "
                'config.include("pyramid_kvs") after it'
            )


def parse(name: str, value: Any, example: str = "") -> Any:
    """Return the object that a setting's JSON describes, or a copy of an object set from Python.

    :param example: of a value, for the message about a string without any bracket.
    :raises ConfigurationError: the string is not JSON, or an object in it has a duplicate key.
    """
    if not isinstance(value, str):
        return copied(value)
    try:
        return json.loads(value, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{name}: not valid JSON: {error.msg} at line {error.lineno} column {error.colno}"
            + _json_hint(value, example)
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not valid JSON: {error}") from None


def check_options(
    name: str, value: Any, table: Mapping[str, Option], example: str = "{}"
) -> dict[str, Any]:
    """Return the options of an object, checked against a table, with defaults.

    :param name: the setting's name, for messages.
    :param example: of a value, for the message about anything but an object.
    :raises ConfigurationError: see the module.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name}: found {show(value)}, expected an object, for example {example}"
        )
    for key in value:
        if key not in table:
            hint = _other_word(key, table)
            raise ConfigurationError(f"{name}: {unknown_name('key', key, sorted(table), hint)}")
    return {key: _checked(name, key, option, value) for key, option in table.items()}


def _other_word(key: object, table: Mapping[str, Option]) -> str:
    """Return the part of a message that names the key that is meant; empty if none is known."""
    word = str(key).lower()
    meant = [name for name, option in table.items() if word in option.other_words]
    return f"; did you mean {meant[0]!r}?" if meant else ""


def _checked(name: str, key: str, option: Option, value: Mapping[str, Any]) -> Any:
    if key not in value:
        if option.default is REQUIRED:
            raise ConfigurationError(f"{name}: {key!r} is missing")
        return copied(option.default)
    try:
        return option.check(value[key])
    except InvalidOption as error:
        found = "a value that is not shown" if option.secret else show(value[key])
        raise ConfigurationError(f"{name}: {key}: found {found}, expected {error}") from None


def copied(value: Any) -> Any:
    """Return a copy of the containers only: an SSL context in ``kvs_kwargs`` cannot be copied."""
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(item) for item in value]
    return value


def check_names(settings: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a ``kvs.*`` setting that looks like a misspelled one; warn about any other.

    :raises ConfigurationError: the name is close to that of a setting.
    """
    for name in settings:
        if not name.startswith("kvs.") or name in known:
            continue
        close = difflib.get_close_matches(name, known, 1, 0.75)
        if close:
            hint = f"; did you mean {close[0]!r}?"
            raise ConfigurationError(unknown_name("setting", name, sorted(known), hint))
        log.warning("setting %r is unknown to pyramid_kvs and has no effect", name)


# -- JSON ------------------------------------------------------------------------------------


def _json_hint(value: str, example: str) -> str:
    if example and not re.search(r"[\[{]", value):
        return f" (write an object, for example {example})"
    if "'" in value and '"' not in value:
        return " (JSON strings need double quotes)"
    if re.search(r",\s*[}\]]", value):
        return " (JSON allows no comma before a closing bracket)"
    if re.search(r"\b(True|False|None)\b", value):
        return " (JSON writes true, false and null)"
    return ""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidOption(f"duplicate key {quoted(key)}")
        found[key] = value
    return found

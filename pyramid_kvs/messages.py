"""Parts of error messages: the closest known name, and values without their secrets.

A message shows a value by :func:`show` or :func:`quoted`, and the text of another library's error
by :func:`without_credentials` or :func:`reason`. Nothing else may show what a setting contains.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_SECRET_NAME = r"pass|pasw|pwd|secret|token|credential|auth|dsn|private|api_?key"  # noqa: S105
_SECRET_KEY = re.compile(_SECRET_NAME, re.IGNORECASE)
#: A misspelled one of these names is also masked, because the message about it shows the value.
_SECRET_NAMES = ("password", "passphrase", "secret", "token", "credentials", "api_key")

#: Each pattern with what replaces it, in this order.
_CREDENTIALS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), shown)
    for pattern, shown in (
        # The query of a URL has a password with "@" in it.
        (rf"(?<=://).*[?&]\w*(?:{_SECRET_NAME})\w*=.*@.*", "***"),
        # Up to the last "@": a password may contain "@", "/" and spaces. A URL that is masked
        # already stays, so that a message can be masked twice and keeps what follows the URL.
        (r"(?<=://)(?!\*\*\*@[^@]*(?:://|\Z))(?:(?!://\*\*\*@).)*@", "***@"),
        # A keyword of libpq, or of a URL's query. The value ends at the next keyword.
        (
            rf"(\w*(?:{_SECRET_NAME})\w*\s*=\s*)('(?:[^'\\]|\\.)*'?|.*?(?=&|\s+\w+\s*=|$))",
            r"\1***",
        ),
        # An item of a dictionary.
        (
            rf"""((["'])\w*(?:{_SECRET_NAME})\w*\2\s*:\s*)"""
            r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,}\s]+)""",
            r"\1***",
        ),
    )
]
#: ``user:password@host``, without a scheme.
_USER = re.compile(r"\A[^@]*:.*@", re.DOTALL)

#: A longer value is cut.
_LONGEST = 120
#: Python refuses to write an integer of more than 4300 digits.
_MOST_BITS = 10_000


def closest(found: object, known: Iterable[object]) -> str:
    """Return the part of a message that names the closest match; empty if nothing is close."""
    names = {str(item).lower(): str(item) for item in known}
    close = difflib.get_close_matches(str(found).lower(), names, 1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def unknown_name(kind: str, name: object, known: Sequence[str], hint: str = "") -> str:
    """Return the message for an unknown name: the known names, and the closest match.

    :param hint: replaces the closest match.
    """
    listed = ", ".join(known)
    return f"unknown {kind} {quoted(name)} (known: {listed}{hint or closest(name, known)})"


def show(value: Any) -> str:
    """Return a value as JSON, as messages may show it: short, and without its secrets."""
    return _short(json.dumps(_redacted(value), ensure_ascii=False))


def quoted(name: object) -> str:
    """Return a name in quotes, as messages may show it: a URL in its place loses its secrets."""
    return _short(repr(_redacted(name)) if isinstance(name, str) else str(_redacted(name)))


def masked(value: str) -> str:
    """Return a value without its secrets; also without the user of ``user:password@host``."""
    return str(_redacted(value))


def without_credentials(message: str) -> str:
    """Return a string in which the user and the passwords of a URL are masked."""
    for pattern, shown in _CREDENTIALS:
        message = pattern.sub(shown, message)
    return message


def reason(error: BaseException, given: Any = None) -> str:
    """Return the text of another library's error, without the secrets of what it was given."""
    text = str(error)
    for secret, shown in _secrets(given):
        for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
            text = text.replace(form, shown)
    return without_credentials(text)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _is_secret(key: object) -> bool:
    """Return whether the value of a key is not shown: the key names a secret, maybe misspelled."""
    name = str(key).lower()
    return bool(
        _SECRET_KEY.search(name) or difflib.get_close_matches(name, _SECRET_NAMES, 1, cutoff=0.8)
    )


def _redacted(value: Any) -> Any:
    """Return a value as JSON can show it."""
    if isinstance(value, Mapping):
        return {
            _redacted(str(key)): "***" if _is_secret(key) else _redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redacted(item) for item in value]
    if isinstance(value, str):
        return without_credentials(value if "://" in value else _USER.sub("***@", value))
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, (int, float)):
        return value
    return without_credentials(repr(value))


def _secrets(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the strings in a value that must not be shown, and what replaces them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if _is_secret(key) and isinstance(item, str) and item:
                yield item, "***"
            else:
                yield from _secrets(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets(item)
    elif isinstance(value, str) and _redacted(value) != value:
        yield value, _redacted(value)

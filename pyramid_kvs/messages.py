"""Parts of error messages: the closest known name, and values without their secrets."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SECRET_KEY = re.compile(r"pass|secret|token|credential", re.IGNORECASE)
#: Up to the last "@": a password that is not percent-encoded may contain "@", "/" and spaces.
_URL_CREDENTIALS = re.compile(r"(?<=://).*@", re.DOTALL)
#: In the query of a URL, or among libpq's ``key=value`` pairs.
_PASSWORD = re.compile(r"(\w*pass\w*\s*=\s*)('(?:[^'\\]|\\.)*'?|[^&\s]*)", re.IGNORECASE)

#: A longer value is cut.
_LONGEST = 120


def closest(found: object, known: Iterable[object]) -> str:
    """Return the part of a message that names the closest match; empty if nothing is close."""
    names = {str(item).lower(): str(item) for item in known}
    close = difflib.get_close_matches(str(found).lower(), names, 1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def unknown_name(kind: str, name: object, known: Sequence[str], hint: str = "") -> str:
    """Return the message for an unknown name: the known names, and the closest match.

    :param hint: replaces the closest match.
    """
    return f"unknown {kind} {name!r} (known: {', '.join(known)}{hint or closest(name, known)})"


def show(value: Any) -> str:
    """Return a value as messages may show it: short, without passwords, secrets or tokens."""
    shown = json.dumps(_redacted(value), default=repr, ensure_ascii=False)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


def without_credentials(message: str) -> str:
    """Return a string, with at most one URL in it, whose user and passwords are masked."""
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

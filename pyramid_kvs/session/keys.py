"""Session ids, and the keys that their sessions have in the store."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from typing import NamedTuple

_HASHED = "sha256:"
#: A token of this form would be the key of another session once tokens are hashed.
LOOKS_HASHED = re.compile(_HASHED + r"[0-9a-f]{64}")


class SessionId(NamedTuple):
    """What a client sends to name its session: the id in a cookie, or the token in a header."""

    value: str
    #: ``"header-name::"`` for a token, empty for the id in a cookie.
    scope: str = ""


class Lookup(NamedTuple):
    """One read of the store that may find the session of a request."""

    key: str
    #: The ttl that the read gives the session; ``None`` means no expiry.
    ttl: float | None
    #: The key under which a rate limit counts the session, wherever it is found.
    counted_as: str


def random_id() -> str:
    """Return 160 random bits in the form of the ids of 1.0."""
    return os.urandom(20).hex()


def plain_key(session_id: SessionId) -> str:
    return session_id.scope + session_id.value


def hashed_key(session_id: SessionId) -> str:
    value, scope = session_id
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{scope}{_HASHED if scope else ''}{digest}"


_FORMS = {
    False: (plain_key,),
    "accept": (plain_key, hashed_key),
    "migrate": (hashed_key, plain_key),
    True: (hashed_key,),
}


class SessionKeys:
    """Turns a session id into the keys that its session may have.

    :param hash_keys: the option. ``False`` uses the id as it is, ``True`` a hash of it.
        ``"accept"`` and ``"migrate"`` are the steps from one to the other, which
        ``docs/sessions.rst`` describes.
    """

    def __init__(self, hash_keys: bool | str) -> None:
        self._forms = _FORMS[hash_keys]
        #: Whether each session has one possible key.
        self.has_one_form = len(self._forms) == 1
        #: Returns the key for a new session with an id.
        self.key_to_save_under: Callable[[SessionId], str] = self._forms[0]
        #: Whether a session moves to the key for new sessions when it is read.
        self.are_migrated = hash_keys == "migrate"

    def all(self, session_id: SessionId) -> list[str]:
        """Return the keys that the session may have, the key for new sessions first."""
        return [form(session_id) for form in self._forms]

    def others(self, session_id: SessionId, key: str) -> tuple[str, ...]:
        """Return the keys that the session may have besides this one."""
        return tuple(other for other in self.all(session_id) if other != key)

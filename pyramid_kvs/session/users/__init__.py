"""Which sessions belong to a user, so that all of them can be ended.

In most stores, an index lists the keys of the user's sessions. Memcached cannot list, and drops
records without notice. It has a number per user instead, the epoch. To end all sessions of the
user, the epoch is raised, because a session with a lower epoch has ended.
"""

from __future__ import annotations

from ...kvs import KVS, is_default
from ..store import SessionStore
from .base import Users, UserSession, user_digest
from .epochs import UserEpochs
from .index import UserIndex

__all__ = [
    "UserEpochs",
    "UserIndex",
    "UserSession",
    "Users",
    "user_digest",
    "users_of",
]


def users_of(store: SessionStore) -> Users:
    """Return the way in which a store finds the sessions of a user."""
    cannot_list = is_default(type(store.driver).get_keys, KVS.get_keys)  # for example memcached
    return UserEpochs(store.driver, store.lifetimes.longest) if cannot_list else UserIndex(store)

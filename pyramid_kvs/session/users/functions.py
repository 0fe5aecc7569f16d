"""The functions that list and end all sessions of a user."""

from __future__ import annotations

from pyramid.request import Request

from ...exceptions import KVSNotSupported
from ..records import EPOCH
from ..session import Session
from .base import UserSession, is_chosen, user_digest
from .epochs import UserEpochs


def list_sessions(request: Request, user_id: str | int) -> list[UserSession]:
    """Return the live sessions that were bound to a user, the most recently used first.

    :raises KVSNotSupported: the store is memcached.
    """
    session = _session(request)
    return session.backend.users.all(user_digest(user_id), session.store_keys())


def end_sessions(request: Request, user_id: str | int, except_current: bool = False) -> int | None:
    """End all sessions that were bound to a user. Their ids are unknown from then on.

    :param except_current: keep the session of this request, if it belongs to the user.
    :returns: how many; ``None`` on memcached, which cannot count them.
    """
    session, user = _session(request), user_digest(user_id)
    users = session.backend.users
    if isinstance(users, UserEpochs):
        _raise_epoch(session, users, user, except_current)
        return None
    current = session.store_keys()
    kept = current if except_current else set()
    ended = users.end(user, lambda key: key not in kept)
    if not current.isdisjoint(ended) or (not except_current and session.is_bound_to(user)):
        session.invalidate()
    return len(ended)


def end_session(request: Request, user_id: str | int, handle: str) -> bool:
    """End one session of a user; return whether it existed.

    :param handle: from :func:`list_sessions`.
    :raises KVSNotSupported: the store is memcached.
    """
    session, user = _session(request), user_digest(user_id)
    current = session.store_keys()
    ended = session.backend.users.end(user, is_chosen(handle))
    if not current.isdisjoint(ended):
        session.invalidate()
    return bool(ended)


def _raise_epoch(session: Session, users: UserEpochs, user: str, except_current: bool) -> None:
    epoch = users.next(user)
    if session.is_bound_to(user):
        if not except_current:
            session.invalidate()
        else:  # saved before the others end, so that no parallel request finds this one ended
            session.set_metadata(EPOCH, epoch)
            session.save()
    users.raise_to(user, epoch)


def _session(request: Request) -> Session:
    session = request.session
    if not isinstance(session, Session):
        raise KVSNotSupported(
            f"request.session is a {type(session).__name__}, not a session of pyramid_kvs"
        )
    return session

"""The functions that list and end all sessions of a user."""

from __future__ import annotations

from pyramid.interfaces import ISessionFactory
from pyramid.registry import Registry
from pyramid.request import Request

from ...events import SessionEnded, current_request, notify
from ...exceptions import KVSNotSupported
from ..factory import SessionFactory
from ..records import Record
from ..session import Session
from .base import UserSession, user_digest


def list_sessions(request: Request, user_id: str | int) -> list[UserSession]:
    """Return the live sessions that were bound to a user, the most recently used first.

    :raises KVSNotSupported: the store is memcached.
    """
    session = _session(request)
    return session.backend.users.all(user_digest(user_id), session.is_stored_as)


def end_sessions(request: Request, user_id: str | int, except_current: bool = False) -> int | None:
    """End all sessions that were bound to a user. Their ids are unknown from then on.

    :param except_current: keep the session of this request, if it belongs to the user.
    :returns: how many; ``None`` on memcached, which cannot count them.
    """
    session, user = _session(request), user_digest(user_id)
    users, is_bound = session.backend.users, session.is_bound_to(user)
    surviving = users.surviving(user)
    if except_current and is_bound and surviving:
        # Saved before the others end, so that no parallel request finds this session ended.
        session.set_metadata(surviving)
        session.save()
    ended = users.end_all(user, session.is_stored_as if except_current else _none, surviving)
    session.backend.tell_outer_requests(request)
    if _has(ended or {}, session) or (is_bound and not except_current):
        session.forget()
    registry = getattr(request, "registry", None)
    if registry is not None and registry.has_listeners:
        _tell_ended(registry, request, ended)
    return None if ended is None else len(ended)


def end_session(request: Request, user_id: str | int, handle: str) -> bool:
    """End one session of a user; return whether it existed.

    :param handle: from :func:`list_sessions`.
    :raises KVSNotSupported: the store is memcached.
    """
    session, user = _session(request), user_digest(user_id)
    ended = session.backend.users.end(user, handle)
    session.backend.tell_outer_requests(request)
    if _has(ended, session):
        session.forget()
    registry = getattr(request, "registry", None)
    if registry is not None and registry.has_listeners:
        _tell_ended(registry, request, ended)
    return bool(ended)


def end_user_sessions(registry: Registry, user_id: str | int) -> int | None:
    """End all sessions that were bound to a user, without a request, for example in a script.

    In a view, use :func:`end_sessions`, which also lets the session of the request end.

    :param registry: of the application, for example ``pyramid.paster.bootstrap(ini)["registry"]``.
    :returns: how many; ``None`` on memcached, which cannot count them.
    :raises KVSNotSupported: the application has no sessions of pyramid_kvs.
    """
    users, user = _factory(registry).users, user_digest(user_id)
    ended = users.end_all(user, _none, users.surviving(user))
    if registry.has_listeners:
        _tell_ended(registry, current_request(registry), ended)
    return None if ended is None else len(ended)


def list_user_sessions(registry: Registry, user_id: str | int) -> list[UserSession]:
    """Return the live sessions of a user as :func:`list_sessions` does, without a request."""
    return _factory(registry).users.all(user_digest(user_id), _none)


def _tell_ended(
    registry: Registry, request: Request | None, ended: dict[str, Record] | None
) -> None:
    """Notify the subscribers of each session that was ended, or once if nobody can count them."""
    counts = [None] if ended is None else [1] * len(ended)
    for count in counts:
        notify(registry, SessionEnded(request, "ended", count))


def _none(key: str, record: Record) -> bool:
    return False


def _has(ended: dict[str, Record], session: Session) -> bool:
    return any(session.is_stored_as(key, record) for key, record in ended.items())


def _factory(registry: Registry) -> SessionFactory:
    factory = registry.queryUtility(ISessionFactory)
    if not isinstance(factory, SessionFactory):
        raise KVSNotSupported(
            "the application has no sessions of pyramid_kvs: set kvs.session, or give the "
            "Configurator a SessionFactory"
        )
    return factory


def _session(request: Request) -> Session:
    session = request.session
    if not isinstance(session, Session):
        raise KVSNotSupported(
            f"request.session is a {type(session).__name__}, not a session of pyramid_kvs: set "
            "kvs.session, or give the Configurator a SessionFactory"
        )
    return session

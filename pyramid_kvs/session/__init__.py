"""Sessions that lose nothing: ``kvs.session``, or :class:`SessionFactory` on its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import ISessionFactory
from pyramid.request import Request
from zope.interface import implementer

from ..application import ORDER_FEATURES, Application
from ..exceptions import KVSNotSupported
from ..kvs import KVS, Stored
from ..messages import show
from ..settings import parse
from ..stores import build_driver, read_options
from .cookies import SessionCookie
from .kinds import AuthTokenSession, CookieSession, is_token
from .objects import Session
from .settings import OPTIONS, SETTING
from .store import SessionKeys, SessionStore
from .users import (
    EPOCH,
    UserEpochs,
    UserIndex,
    Users,
    UserSession,
    is_chosen,
    user_digest,
)

__all__ = [
    "AuthTokenSession",
    "CookieSession",
    "SessionFactory",
    "UserSession",
    "end_session",
    "end_sessions",
    "list_sessions",
]

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SESSION_TYPES = {"cookie": CookieSession, "header": AuthTokenSession}


def includeme(config: Configurator) -> None:
    """Register the session factory."""
    introspectable = config.introspectable(
        "session factory", None, "kvs.session of pyramid_kvs", "session factory"
    )
    introspectable["setting"] = SETTING

    application = Application.of(config.registry)

    def build() -> None:
        value = config.registry.settings[SETTING]
        application.features[SETTING] = SessionFactory(value, application=application)

    def register() -> None:
        config.registry.registerUtility(application.features[SETTING], ISessionFactory)

    config.action(SETTING, build, order=ORDER_FEATURES)
    # In the order of Pyramid's own set_session_factory, which thus replaces it without conflict.
    config.action(ISessionFactory, register, introspectables=(introspectable,))


@implementer(ISessionFactory)
class SessionFactory:
    """Makes the session of each request.

    :param options: the value of ``kvs.session``: an object or JSON text; or, as with 1.0, an
        application's settings with that key.
    :param name: the setting's name, for messages.
    :param application: whose drivers and codecs are known.
    :raises pyramid.exceptions.ConfigurationError: an option is not valid.
    """

    def __init__(
        self,
        options: Mapping[str, Any] | str,
        *,
        name: str = SETTING,
        application: Application | None = None,
    ) -> None:
        if not isinstance(options, str) and SETTING in options:
            options = options[SETTING]
        checked = read_options(name, parse(name, options), OPTIONS)
        self.key_name: str | list[str] = checked["key_name"]
        self.session_class: type[Session] = _SESSION_TYPES[checked["session_type"]]
        self.header_titles: list[str] = []
        if checked["session_type"] == "cookie":
            self.cookie = SessionCookie(checked, name)
        else:
            self.header_titles = _header_titles(self.key_name, name)
        #: The request headers on which responses depend.
        self.vary = self.header_titles or ["Cookie"]
        self.header_names = [title.lower() for title in self.header_titles]
        self._headers = [
            (name, "HTTP_" + name.upper().replace("-", "_")) for name in self.header_names
        ]
        self.driver = build_driver(name, checked, application or Application())
        self.ttl: float | None = checked["ttl"]
        self._reserved: tuple[str, ...] = ()
        self.keys = SessionKeys(checked["hash_keys"])
        self.store = SessionStore(self.driver, checked)
        self.users: Users = (
            UserEpochs(self.driver)
            if type(self.driver).get_keys is KVS.get_keys  # it cannot list keys: memcached
            else UserIndex(self.store)
        )

    def __call__(self, request: Request) -> Session:
        """Return the session of a request; nothing is read yet."""
        return self.session_class(request, self)

    def session_key(self, request: Request) -> str | None:
        """Return the key under which the session of a request would lie.

        ``None``: the request brings neither id nor token, or nothing that can be one.
        """
        keys = self.session_keys(request)
        return keys[0] if keys else None

    def session_keys(self, request: Request) -> list[str]:
        """Return all keys under which it may lie, that of new sessions first; see ``hash_keys``."""
        if self.session_class is CookieSession:
            found = self.find_id(request)
            return [] if found is None else self.keys.all("", found)
        name, token = self.find_token(request)
        return [] if token is None else self.keys.all(f"{name}::", token)

    def keys_of(self, session_id: str) -> list[str]:
        """Return all keys that a session with this id or token may have in the store."""
        scopes = [f"{name}::" for name in self.header_names] or [""]
        return [key for scope in scopes for key in self.keys.all(scope, session_id)]

    def reserve(self, suffix: str) -> None:
        """Keep the keys that end with a suffix for others: no session gets such a key.

        Without this, a client could send the token ``"token::ratelimit"``, and its session would
        be stored where the counter of another client is.
        """
        self._reserved += (suffix,)

    def preload(self, request: Request, key: str, stored: Stored | None) -> None:
        """Give a request's session the data that were already read, so that it reads only once.

        :param key: one of :meth:`session_keys`.
        :param stored: the result of ``driver.raw_load(key, ttl)`` during this request.
        """
        request._kvs_preloaded = (key, stored)

    def preloaded(self, request: Request) -> tuple[str, Stored | None] | None:
        """Return what :meth:`preload` was given for a request."""
        return getattr(request, "_kvs_preloaded", None)

    def find_id(self, request: Request) -> str | None:
        """Return the id in the request's cookie; ``None``: none, or nothing that can be one."""
        found = self.cookie.find(request)
        return None if found is None or found.endswith(self._reserved) else found

    def find_token(self, request: Request) -> tuple[str | None, str | None]:
        """Return the name, in lower case, and the value of the first header that is there."""
        for name, variable in self._headers:
            value = request.environ.get(variable) or _in_lower_case(request.headers).get(name)
            if value is not None and self.takes_token(value.strip()):
                return name, value.strip()
        return None, None

    def takes_token(self, value: object) -> bool:
        """Return whether a session may lie under a token: not where a counter would lie."""
        return is_token(value) and not str(value).endswith(self._reserved)


def _in_lower_case(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers that are found by a name in lower case; a DummyRequest's are a dict."""
    if not isinstance(headers, dict):
        return headers
    return {name.lower().replace("_", "-"): value for name, value in headers.items()}


def _header_titles(names: str | list[str], setting: str) -> list[str]:
    titles = [names] if isinstance(names, str) else names
    for title in titles:
        if not _HEADER_NAME.fullmatch(title):
            raise ConfigurationError(
                f"{setting}: key_name: found {show(title)}, expected the name of a header"
            )
    return [title.replace("_", "-") for title in titles]


# -- all sessions of a user --------------------------------------------------------------------


def list_sessions(request: Request, user_id: str | int) -> list[UserSession]:
    """Return the live sessions that were bound to a user, the latest used first.

    :raises KVSNotSupported: on memcached.
    """
    session = _session(request)
    return session._factory.users.all(user_digest(user_id), session.store_keys())


def end_sessions(request: Request, user_id: str | int, except_current: bool = False) -> int | None:
    """End all sessions that were bound to a user; their ids are unknown from then on.

    :param except_current: keep that of this request, if it is the user's.
    :returns: how many; ``None`` on memcached, which cannot tell.
    """
    session, user = _session(request), user_digest(user_id)
    users = session._factory.users
    if isinstance(users, UserEpochs):
        _raise_epoch(session, users, user, except_current)
        return None
    current = session.store_keys()
    kept = current if except_current else []
    ended = users.end(user, lambda key: key not in kept)
    if not set(ended).isdisjoint(current) or (not except_current and session.is_bound_to(user)):
        session.invalidate()
    return len(ended)


def end_session(request: Request, user_id: str | int, handle: str) -> bool:
    """End one session of a user; return whether it was there.

    :param handle: of :func:`list_sessions`.
    :raises KVSNotSupported: on memcached.
    """
    session, user = _session(request), user_digest(user_id)
    current = session.store_keys()
    ended = session._factory.users.end(user, is_chosen(handle))
    if not set(ended).isdisjoint(current):
        session.invalidate()
    return bool(ended)


def _raise_epoch(session: Session, users: UserEpochs, user: str, except_current: bool) -> None:
    epoch = users.next(user)
    if session.is_bound_to(user):
        if not except_current:
            session.invalidate()
        else:  # before the others end, lest a parallel request finds this one ended
            session.set_metadata(EPOCH, epoch)
            session.save()
    users.raise_to(user, epoch)


def _session(request: Request) -> Session:
    session = request.session
    if not isinstance(session, Session):
        raise KVSNotSupported(
            f"request.session is a {type(session).__name__}, not one of pyramid_kvs"
        )
    return session

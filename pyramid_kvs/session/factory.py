"""The session factory, which Pyramid calls for ``request.session``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyramid.interfaces import ISessionFactory
from pyramid.request import Request
from zope.interface import implementer

from ..application import Application
from ..stores import build_driver, parse, read_options, warn_of_unsigned_pickle
from .backend import SessionBackend
from .carriers import Carrier, CookieCarrier, HeaderCarrier
from .codec_check import check_codec
from .keys import SessionKeys
from .kinds import AuthTokenSession, CookieSession
from .session import Session
from .settings import OPTIONS, SETTING, refuse_cookie_options
from .store import SessionStore
from .users import Users, users_of


@implementer(ISessionFactory)
class SessionFactory:
    """Makes the session of each request.

    :param options: the value of ``kvs.session``, as an object or as JSON. As in 1.0, it can also
        be the settings of an application, with that key.
    :param name: the name of the setting, for messages.
    :param application: the application whose drivers and codecs are used.
    :raises pyramid.exceptions.ConfigurationError: an option is not valid.
    """

    def __init__(
        self,
        options: Mapping[str, Any] | str,
        *,
        name: str = SETTING,
        application: Application | None = None,
    ) -> None:
        if isinstance(options, Mapping) and SETTING in options:
            options = options[SETTING]
        written = parse(name, options)
        checked = read_options(name, written, OPTIONS)
        if checked["session_type"] == "header":
            refuse_cookie_options(name, written)
        self.session_class, carrier = _kind(checked, name)
        self.key_name: str | list[str] = checked["key_name"]
        self.ttl: float | None = checked["ttl"]
        application = application or Application()
        self.driver = build_driver(name, checked, application)
        check_codec(name, checked["codec"], self.driver.codec)
        warn_of_unsigned_pickle(name, checked)
        keys = SessionKeys(checked["hash_keys"])
        store = SessionStore(self.driver, keys, checked)
        self._backend = SessionBackend(
            self.key_name,
            self.driver,
            carrier,
            keys,
            store,
            users_of(store),
            application.registry,
        )
        # For the rate limit, in each request, so without a call in between.
        #: Returns the reads of which the first that finds something finds the session.
        self.lookups = self._backend.lookups
        #: Lets the session of a request use data that were already read.
        self.preload = self._backend.preload

    def __call__(self, request: Request) -> Session:
        """Return the session of a request, which is not read yet."""
        session_class = self.session_class
        return session_class(request, self._backend)

    def session_key(self, request: Request) -> str | None:
        """Return the key that the session of a request would have in the store.

        It is ``None`` if the request has no valid id or token. If the request has several cookies
        of the name, it is the key of the first one.
        """
        lookups = self.lookups(request)
        return lookups[0].key if lookups else None

    @property
    def users(self) -> Users:
        """What is known of the sessions of each user."""
        return self._backend.users

    # -- for the rate limit ---------------------------------------------------------------

    def keys_of(self, session_id: str) -> list[str]:
        """Return all keys that a session with this id or token may have."""
        ids = self._backend.carrier.ids_of(session_id)
        return [key for found in ids for key in self._backend.keys.all(found)]

    def reserve(self, suffix: str) -> None:
        """Refuse session ids that end with a suffix.

        Otherwise a client could send the token ``"token::ratelimit"``, and its session would be
        stored where the counter of another client is.
        """
        self._backend.carrier.reserve(suffix)


def _kind(options: Mapping[str, Any], setting: str) -> tuple[type[Session], Carrier]:
    if options["session_type"] == "cookie":
        return CookieSession, CookieCarrier(options, setting)
    return AuthTokenSession, HeaderCarrier(options["key_name"], setting)

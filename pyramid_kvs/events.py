"""Pyramid events: what became of sessions, requests over a limit, and unavailable stores.

Subscribe to a class with ``config.add_subscriber`` or ``@subscriber``. An event has no session id,
token, key or value. Nothing is created or called for an application without subscribers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.threadlocal import manager
from zope.interface import Attribute, Interface, implementer

from .logs import ThrottledLog

__all__ = [
    "IRateLimitExceeded",
    "ISessionConflict",
    "ISessionEnded",
    "ISessionIdRenewed",
    "ISessionStarted",
    "IStoreBack",
    "IStoreUnavailable",
    "RateLimitExceeded",
    "SessionConflict",
    "SessionEnded",
    "SessionIdRenewed",
    "SessionStarted",
    "StoreBack",
    "StoreUnavailable",
]

log = logging.getLogger("pyramid_kvs.events")

#: The key of a registry for its throttled logs.
_REGISTRY_KEY = "pyramid_kvs.events"

#: How many events may be inside each other, because a subscriber of one caused the next.
_DEEPEST = 4
_depth: ContextVar[int] = ContextVar("pyramid_kvs_events", default=0)


class _IEvent(Interface):  # type: ignore[misc]
    request = Attribute("The request in which it happened, or None outside of requests.")


class ISessionStarted(_IEvent):
    """The interface of :class:`SessionStarted`."""


class ISessionEnded(_IEvent):
    """The interface of :class:`SessionEnded`."""

    reason = Attribute('"invalidated", "cleared", "ended" or "expired".')
    count = Attribute("1, or None for all sessions of a user, if the store cannot count them.")


class ISessionIdRenewed(_IEvent):
    """The interface of :class:`SessionIdRenewed`."""


class ISessionConflict(_IEvent):
    """The interface of :class:`SessionConflict`."""

    is_saved = Attribute("Whether the later change was saved. False: it was refused.")


class IRateLimitExceeded(_IEvent):
    """The interface of :class:`RateLimitExceeded`."""

    name = Attribute("The name of the limit.")
    limit = Attribute("Its number of requests.")
    window = Attribute("Its window in seconds.")
    by = Attribute("What it counts by, as in the setting.")
    retry_after = Attribute("The seconds until the request would pass.")
    is_shadow = Attribute("Whether the limit is in shadow mode, so that the request passed.")


class IStoreUnavailable(_IEvent):
    """The interface of :class:`StoreUnavailable`."""

    server = Attribute('The server as the log names it, for example "redis at 10.0.0.1:6379".')


class IStoreBack(_IEvent):
    """The interface of :class:`StoreBack`."""

    server = Attribute('The server as the log names it, for example "redis at 10.0.0.1:6379".')
    seconds = Attribute("How long it was unavailable.")


@dataclass(frozen=True, eq=False)
class Event:
    """What all events have: the request in which it happened, or ``None``."""

    request: Request | None = field(repr=False)


@implementer(ISessionStarted)
class SessionStarted(Event):
    """A new session was stored for the first time."""


@implementer(ISessionEnded)
@dataclass(frozen=True, eq=False)
class SessionEnded(Event):
    """A session was removed from the store before its ttl was over."""

    #: ``"invalidated"``: ``session.invalidate()``. ``"cleared"``: ``session.clear()``, and nothing
    #: was stored afterwards. ``"ended"``: ``end_session``, ``end_sessions`` or
    #: ``end_user_sessions``. ``"expired"``: ``absolute_ttl`` was over when it was read.
    reason: str
    #: 1, or ``None`` for all sessions of a user on memcached, which cannot count them.
    count: int | None = 1


@implementer(ISessionIdRenewed)
class SessionIdRenewed(Event):
    """A stored session got another id, or another token. The old one is unknown from now on."""


@implementer(ISessionConflict)
@dataclass(frozen=True, eq=False)
class SessionConflict(Event):
    """A save found that another request had changed one of the same values."""

    #: Whether the later change was saved. It is ``False`` with ``"on_conflict": "raise"``.
    is_saved: bool


@implementer(IRateLimitExceeded)
@dataclass(frozen=True, eq=False)
class RateLimitExceeded(Event):
    """A request, or a charge, was over a limit."""

    #: The name of the limit.
    name: str
    #: Its number of requests.
    limit: int
    #: In seconds.
    window: float
    #: What it counts by, for example ``"session"``.
    by: str
    #: The seconds until the same request would pass.
    retry_after: float
    #: Whether the limit is in shadow mode, so that the request passed.
    is_shadow: bool


@implementer(IStoreUnavailable)
@dataclass(frozen=True, eq=False)
class StoreUnavailable(Event):
    """A call found that a server is unavailable, which answered the call before."""

    #: As the log names it, for example ``redis at 10.0.0.1:6379``.
    server: str


@implementer(IStoreBack)
@dataclass(frozen=True, eq=False)
class StoreBack(Event):
    """A server answered again after :class:`StoreUnavailable`."""

    #: As the log names it, for example ``redis at 10.0.0.1:6379``.
    server: str
    #: How long it was unavailable.
    seconds: float


# -- firing ----------------------------------------------------------------------------------


def notify(registry: Registry, event: Event) -> None:
    """Tell the subscribers of an application.

    An event reports what has happened. An error in a subscriber therefore changes nothing, and is
    logged. To be called when the state is consistent, because subscribers may use the store, and
    only while ``registry.has_listeners``.
    """
    depth = _depth.get()
    if depth >= _DEEPEST:
        _throttled(registry, event).error(
            "subscribers cause events in a circle: %s is not notified", type(event).__name__
        )
        return
    token = _depth.set(depth + 1)
    try:
        registry.notify(event)
    except Exception as error:  # noqa: BLE001 (a subscriber may raise anything)
        _throttled(registry, event).exception(
            "a subscriber of %s raised %s", type(event).__name__, type(error).__name__
        )
    finally:
        _depth.reset(token)


def _throttled(registry: Registry, event: Event) -> ThrottledLog:
    """Return the log of one kind of event, so that those of another do not hide its failures."""
    logs: dict[type[Event], ThrottledLog] = registry.setdefault(_REGISTRY_KEY, {})
    return logs.get(type(event)) or logs.setdefault(type(event), ThrottledLog(log))


def current_request(registry: Registry) -> Request | None:
    """Return the request of this thread, if it is one of the application."""
    context = manager.get()
    return context["request"] if context["registry"] is registry else None


def outage_teller(registry: Registry) -> Callable[[str, float | None], None]:
    """Return what tells the subscribers that a server is unavailable, or back after seconds."""

    def tell(server: str, seconds: float | None) -> None:
        if registry.has_listeners:
            request = current_request(registry)
            if seconds is None:
                notify(registry, StoreUnavailable(request, server))
            else:
                notify(registry, StoreBack(request, server, seconds))

    return tell

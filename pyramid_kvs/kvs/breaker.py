"""A circuit breaker for each server: a server that does not answer is left alone for a while.

Without one, each call on a hung server waits for its whole timeout, and so do all requests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias
from weakref import ref

from ..exceptions import not_sent

log = logging.getLogger("pyramid_kvs.stores")

#: Seconds for which a server is left alone after a timeout.
SECONDS = 1.0


#: Seconds without a refusal after which a server that refuses some commands counts as back.
QUIET = 60.0

#: Called with a server and ``None`` when it becomes unavailable, and with the seconds of the outage
#: when it is back. It raises no error.
OutageListener: TypeAlias = "Callable[[str, float | None], None]"

#: What this thread has to tell when :func:`told_later` ends; ``None`` outside of it.
_untold: ContextVar[list[Callable[[], None]] | None] = ContextVar("untold", default=None)


@contextmanager
def told_later() -> Iterator[None]:
    """Tell listeners of outages after the block, which holds a lock that their calls may need."""
    if _untold.get() is not None:
        yield
        return
    untold: list[Callable[[], None]] = []
    token = _untold.set(untold)
    try:
        yield
    finally:
        _untold.reset(token)
        for tell in untold:
            tell()


class Outage:
    """Since when one server is unavailable, as all breakers of this server have found.

    :param listeners: told once of the beginning and of the end, by the thread that notices.
    """

    __slots__ = ("_listeners", "_refused_at", "_since", "server")

    def __init__(self, server: str, listeners: Iterable[OutageListener] = ()) -> None:
        self.server = server
        self._listeners = listeners
        #: Has the moment of the beginning, under one key. The caller that adds it tells of it, and
        #: so does the caller that removes it.
        self._since: dict[None, float] = {}
        #: When the server last refused a command, and answered others.
        self._refused_at = float("-inf")

    @property
    def is_under_way(self) -> bool:
        """Whether the server is unavailable, as far as the breakers know."""
        return bool(self._since)

    def begin(self, moment: float) -> None:
        """Note a failure at a moment of ``time.monotonic()``."""
        if not self._since and self._since.setdefault(None, moment) is moment:
            self._tell(None)

    def refuse(self, moment: float) -> None:
        """Note that the server refused a command at a moment, although it answers."""
        self._refused_at = moment
        self.begin(moment)

    def is_refusing(self) -> bool:
        """Return whether the server has refused a command a while ago, although it answers.

        A full or read-only server answers what only reads, and is not back because of that.
        """
        return time.monotonic() - self._refused_at < QUIET

    def end(self) -> None:
        """Note that the server answers again."""
        now, refused_at = time.monotonic(), self._refused_at
        since = self._since.pop(None, None)
        if since is not None:
            seconds = (refused_at if refused_at >= since else now) - since
            log.warning("%s is back; it was unavailable for %.1f s", self.server, seconds)
            self._tell(seconds)

    def take_over(self, other: Outage) -> bool:
        """Go on with the outage of another server, if there is one; return whether there is.

        Nobody is told of a second beginning.
        """
        since = other._since.pop(None, None)
        if since is not None:
            self._since.setdefault(None, since)
        return since is not None

    def _tell(self, seconds: float | None) -> None:
        untold = _untold.get()
        if untold is not None:
            untold.append(lambda: self._tell(seconds))
            return
        for listener in self._listeners:
            listener(self.server, seconds)


class Breaker:
    """What a process knows about the health of one server.

    While ``is_troubled`` is false, a driver calls nothing here. After a timeout the breaker is
    open: calls fail at once, and one caller in ``seconds`` probes the server.

    There are no locks, so that a child process never waits for one that a thread of its parent
    holds. Whatever has to happen once is one atomic operation on a list or a dictionary. Listeners
    are told last, when no connection and no state of the caller can be lost by what they do.

    :param server: the server as messages name it, for example ``redis at 10.0.0.1:6379``.
    :param seconds: how long a server is left alone; 0 means never.
    :param outage: shared with the other breakers of the server.
    """

    __slots__ = (
        *("__weakref__", "_open_until", "_outage", "_tokens", "is_troubled", "seconds", "server"),
    )

    def __init__(self, server: str, seconds: float = SECONDS, outage: Outage | None = None) -> None:
        self.server = server
        self.seconds = seconds
        #: Whether the latest call that ended failed; the only thing to look at while all is well.
        self.is_troubled = outage is not None and outage.is_under_way
        self._open_until = 0.0
        #: Holds the moment that ends the opening. The caller that removes it probes the server.
        self._tokens: list[float] = []
        self._outage = outage or Outage(server)

    @property
    def address(self) -> str:
        """The server without its kind, for example ``10.0.0.1:6379``."""
        return self.server.partition(" at ")[2] or self.server

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once."""
        return time.monotonic() < self._open_until

    def admit(self) -> None:
        """Let a call pass, or refuse it; to be called only while ``is_troubled``.

        :raises KVSUnavailable: the server is left alone, or another caller probes it.
        """
        until, now = self._open_until, time.monotonic()
        if not until or (now >= until and self._may_probe(until, now)):
            return
        raise not_sent(
            f"{self.server} did not answer a moment ago; it is left alone for up to "
            f"{self.seconds:g} s"
        )

    def _may_probe(self, until: float, now: float) -> bool:
        try:
            self._tokens.remove(until)
        except ValueError:
            # Another caller has the token. If it never came back, another one may probe.
            if now < until + self.seconds:
                return False
        self._open(now)
        return True

    def timed_out(self, began: float | None = None) -> None:
        """Note that the server did not answer in time: leave it alone from now on.

        :param began: when the call began, by ``time.monotonic()``; ``None`` means just now.
        """
        now = time.monotonic()
        self.is_troubled = True
        if self.seconds:
            self._open(now)
        self._outage.begin(now if began is None else began)

    def failed(self) -> None:
        """Note that the server was unavailable in another way, which took no time."""
        self.is_troubled = True
        self._outage.begin(time.monotonic())

    def refused(self) -> None:
        """Note that the server refused a command for now, although it may answer others."""
        self.is_troubled = True
        self._open_until = 0.0
        self._outage.refuse(time.monotonic())

    def answered(self) -> None:
        """Note that the server answered; to be called only while ``is_troubled``."""
        if self._outage.is_refusing():
            self._open_until = 0.0
            return
        self.is_troubled = False
        self._open_until = 0.0
        self._outage.end()

    def take_over(self, other: Breaker) -> None:
        """Go on with the outage of a server whose place this one took, if there is one.

        It ends when this server answers.
        """
        self.is_troubled = self._outage.take_over(other._outage) or self.is_troubled

    def _open(self, now: float) -> None:
        until = now + self.seconds
        self._tokens[:] = [until]
        self._open_until = until


class Breakers:
    """The breakers of an application: settings that name the same server share one.

    A breaker exists as long as a driver uses its server. A cluster whose nodes get new addresses
    would otherwise have more and more of them.
    """

    def __init__(self) -> None:
        self._breakers: dict[tuple[str, float], ref[Breaker]] = {}
        self._outages: dict[str, Outage] = {}
        #: Told of each outage of a server, once, whichever settings name it.
        self.listeners: list[OutageListener] = []

    def get(self, server: str, seconds: float = SECONDS) -> Breaker:
        """Return the breaker of a server."""
        outage = self._outages.setdefault(server, Outage(server, self.listeners))
        new = Breaker(server, seconds, outage)
        found = self._breakers.setdefault((server, seconds), ref(new))()
        if found is None:  # the server was not used for a while
            self._breakers[server, seconds] = ref(new)
        return found or new

    def all(self) -> list[Breaker]:
        """Return the breakers of all servers that drivers use."""
        known = [breaker() for breaker in self._breakers.copy().values()]
        return [breaker for breaker in known if breaker is not None]


def check_seconds(value: object) -> float:
    """Return the value of ``breaker`` in ``kvs_kwargs``.

    :raises ValueError: it is not a number of seconds.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 3600:
        raise ValueError(
            f"breaker: found {value!r}, expected a number of seconds from 0 (never) to 3600"
        )
    return value

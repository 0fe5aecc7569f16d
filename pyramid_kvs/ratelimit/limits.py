"""A limit, and its status for one request."""

from __future__ import annotations

import functools
import ipaddress
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pyramid.exceptions import ConfigurationError
from pyramid.request import Request

from ..exceptions import KVSError, KVSUnavailable
from ..kvs import new_tuple
from ..logs import ThrottledLog
from ..messages import reason
from .counting import COUNT, LOOK, LimitCheck, LimitResult, Rule
from .identity import (
    Fallback,
    Identify,
    address_of,
    client_address,
    fallback_of,
    identify_by,
    is_late,
    parse_address,
)
from .settings import Options
from .store import LimitStore


@dataclass(frozen=True, eq=False)
class Limit:
    """One limit, ready to count."""

    name: str
    rule: Rule
    #: In seconds.
    window: float
    by: str
    identify: Identify
    #: Whether a client without a session is counted by its address.
    is_address_enough: bool
    #: Whether only a request that has reached a view can be identified.
    is_late: bool
    #: Returns who is counted for a request that cannot be identified.
    fallback: Fallback
    #: Follows the identity in the key of a counter.
    suffix: str
    store: LimitStore
    #: ``None`` means all methods.
    methods: frozenset[str] | None
    #: Returns whether an address is not limited; ``None`` means that all are.
    is_exempt: Callable[[str | None], bool] | None
    #: The statuses of the responses that count. ``None`` means all, before the view is called.
    outcomes: frozenset[int] | None
    #: Where a limit in shadow mode logs; ``None`` means that the limit is enforced.
    shadow: ThrottledLog | None
    on_error: str
    tells_x: bool
    tells_ietf: bool
    error_status: int
    #: Its part of the header field ``RateLimit-Policy``.
    policy_field: str
    #: Its part of ``RateLimit``, but for the remaining units and the seconds until the reset.
    quota_field: str
    #: The header ``X-RateLimit-Limit``.
    x_limit: tuple[str, str]
    options: Options

    @property
    def by_address(self) -> bool:
        """Whether clients that have no other identity are counted by their address."""
        return self.by == "address" or self.options["unknown"] == "address"

    def applies(self, request: Request) -> bool:
        if self.methods is not None and request.method not in self.methods:
            return False
        return self.is_exempt is None or not self.is_exempt(client_address(request))

    @property
    def is_conditional(self) -> bool:
        """Whether the limit does not apply to some requests."""
        return self.methods is not None or self.is_exempt is not None

    @property
    def notes(self) -> str:
        """What is special about the limit, for lists."""
        count, networks = self.options["count"], self.options["except"]
        found = ["shadow"] if self.shadow is not None else []
        if self.outcomes is not None:
            listed = count if isinstance(count, str) else " ".join(map(str, count))
            found.append(f"counts {listed}")
        if networks:
            found.append(f"except {' '.join(networks)}")
        return ", ".join(found)

    def check(self, request: Request, session_key: str | None) -> LimitCheck:
        """Return what to ask the store about a request."""
        known: str | None
        unknown: str | None
        try:
            found = None
            if session_key is None and self.is_address_enough:
                found = getattr(request, "remote_addr", None)
            if found:  # as identify, without the call
                known = unknown = address_of(found)
            else:
                known, unknown = self.identify(request, session_key)
        except Exception as error:  # noqa: BLE001 (raised again, unless in shadow mode)
            known = unknown = self._without_identity(request, error)
            session_key = None
        if self.store.companion is None:
            known_key = known and known + self.suffix
            unknown_key = known_key if unknown is known else unknown and unknown + self.suffix
            return new_tuple(LimitCheck, (self.rule, known_key, unknown_key))
        key = self.key(known, session_key if self.by == "session" else None)
        return LimitCheck(self.rule, key, key if unknown == known else self.key(unknown))

    def key(self, identity: str | None, home: str | None = None) -> str | None:
        """Return the key of a counter.

        :param identity: whose counter it is; ``None`` means nobody.
        :param home: on a cluster, the key whose slot has the counter: that of the session, if it
            is the session's counter.
        """
        if identity is None:
            return None
        key, companion = identity + self.suffix, self.store.companion
        return key if companion is None else companion(home or identity, key)

    def _without_identity(self, request: Request, error: Exception) -> str | None:
        """Return who is counted if the application fails to tell."""
        if isinstance(error, KVSError) and error.http_status is not None:
            self.note_failure(error)
            return self.fallback(request)
        if self.shadow is None:
            try:
                raise error
            finally:
                del error  # the traceback has this frame
        self._log_failure(error)
        return None

    def note_failure(self, error: KVSError) -> None:
        """Note that a store fails which the identity depends on: nobody is known.

        :raises KVSUnavailable: ``on_error`` is ``"deny"``.
        """
        if self.on_error == "deny":
            raise KVSUnavailable("rate limit: nobody passes who cannot be identified") from error
        self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        self.store.log.warning(
            "rate limit %s: who is counted cannot be found (by: %s), which counts as unknown: %s",
            self.name,
            self.by,
            reason(error),
        )


class LimitStatus:
    """What one limit says to a request."""

    __slots__ = ("_result", "is_counted", "policy")

    def __init__(self, limit: Limit, result: LimitResult | None) -> None:
        self.policy = limit
        self._result = result or LimitResult(True, limit.rule.limit, 0, 0)
        #: False while the store is unavailable and ``on_error`` is ``"allow"``, and if nobody is
        #: counted, as with ``"unknown": "allow"``.
        self.is_counted = result is not None

    def __repr__(self) -> str:
        return f"<LimitStatus {self.name!r}: {self.remaining} of {self.limit} remain>"

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def allowed(self) -> bool:
        return self._result.allowed

    @property
    def limit(self) -> int:
        return self.policy.rule.limit

    @property
    def window(self) -> float:
        """In seconds."""
        return self.policy.window

    @property
    def remaining(self) -> int:
        return self._result.remaining

    @property
    def reset(self) -> float:
        """The seconds until more units remain than now."""
        return self._result.reset_ms / 1000

    @property
    def retry_after(self) -> float:
        """The seconds until the same request would pass; 0 if it has passed."""
        return self._result.retry_ms / 1000


def most_restrictive(statuses: Sequence[LimitStatus]) -> LimitStatus:
    """Return the limit that refuses, or else the one with the fewest units left.

    A limit that has not counted the request comes last.
    """
    return min(statuses, key=restriction)


def restriction(status: LimitStatus) -> tuple[bool, bool, int, float]:
    """Return what puts the statuses in order, the most restrictive one first."""
    return status.allowed, not status.is_counted, status.remaining, -status.reset


def make_limit(
    options: Options,
    place: str,
    name: str,
    suffix: str,
    store: LimitStore,
    resolve: Callable[[str], Any],
) -> Limit:
    """Return the limit that checked options describe.

    :param place: where the options are, for messages.
    :param resolve: imports a dotted name.
    """
    window, limit, is_shadow = options["window"], options["limit"], options["mode"] == "shadow"
    return Limit(
        name=name,
        rule=_rule(options),
        window=window,
        by=options["by"],
        identify=_identify(options, place, resolve),
        is_address_enough=_is_address_enough(options),
        is_late=is_late(options["by"]),
        fallback=fallback_of(options["unknown"]),
        suffix=suffix,
        store=store,
        methods=_methods(options["methods"]),
        is_exempt=_exemption(options["except"]),
        outcomes=_outcomes(options["count"]),
        shadow=ThrottledLog(logging.getLogger("pyramid_kvs.ratelimit")) if is_shadow else None,
        on_error="allow" if is_shadow and options["on_error"] == "deny" else options["on_error"],
        tells_x="x" in options["headers"],
        tells_ietf="ietf" in options["headers"],
        error_status=options["status"],
        policy_field=f"{_quoted(name)};q={limit};w={math.ceil(window)}",
        quota_field=_quoted(name).replace("%", "%%") + ";r=%d;t=%d",
        x_limit=("X-RateLimit-Limit", str(limit)),
        options=options,
    )


def _rule(options: Options) -> Rule:
    return Rule(
        options["strategy"],
        options["limit"],
        math.ceil(options["window"] * 1000),
        options["burst"] or options["limit"],
        options["cost"],
        COUNT if _outcomes(options["count"]) is None else LOOK,
        options["mode"] == "shadow",
    )


def _identify(options: Options, place: str, resolve: Callable[[str], Any]) -> Identify:
    try:
        return identify_by(options["by"], options["unknown"], resolve)
    except ValueError as error:
        raise ConfigurationError(f"{place}: by: {reason(error)}") from error


def _is_address_enough(options: Options) -> bool:
    by, unknown = options["by"], options["unknown"]
    return bool(by == "address" or (by, unknown) == ("session", "address"))


def _methods(names: list[str] | None) -> frozenset[str] | None:
    if names is None:
        return None
    methods = set(names)
    # Pyramid answers HEAD with the views of GET.
    return frozenset(methods | {"HEAD"} if "GET" in methods else methods)


def _outcomes(count: str | list[int]) -> frozenset[int] | None:
    if count == "failures":
        return frozenset(range(400, 600)) - {429}
    return None if isinstance(count, str) else frozenset(count)


def _exemption(networks: list[str]) -> Callable[[str | None], bool] | None:
    """Return a function that tells whether an address is in one of the networks."""
    if not networks:
        return None
    parsed = [ipaddress.ip_network(network) for network in networks]

    @functools.lru_cache(maxsize=4096)
    def is_exempt(address: str | None) -> bool:
        found = parse_address(address or "")
        return found is not None and any(found in network for network in parsed)

    return is_exempt


def _quoted(name: str) -> str:
    """Return printable ASCII characters as a String of RFC 9651."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def derived_name(scope: str, options: Options) -> str:
    """Return the name of a limit that has none: its scope and its window.

    The name does not contain the number of the limit, so that a change of the number does not
    start the counters again.
    """
    return quote(scope, safe=":._/ -")[:40] + f"-{options['window']:g}s"

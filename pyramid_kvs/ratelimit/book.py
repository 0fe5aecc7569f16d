"""All limits of an application, made of options, each with a name and counters of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pyramid.exceptions import ConfigurationError

from ..application import Application
from ..messages import show
from ..stores import build_driver
from .identity import SessionLike
from .options import Limit, Options, derived_name, make_limit
from .processes import ProcessWatch
from .settings import SETTING
from .store import LimitStore


class Group(NamedTuple):
    """Limits that one store counts in one call."""

    store: LimitStore
    limits: list[Limit]
    by_session: bool  # one of them does
    by_method: bool  # one of them counts only some methods


class LimitSet:
    """Limits that hold together, by their stores."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = list(dict.fromkeys(limits))
        by_store: dict[LimitStore, list[Limit]] = {}
        for limit in self.limits:
            by_store.setdefault(limit.store, []).append(limit)
        self.groups = [_group(store, found) for store, found in by_store.items()]
        self.by_session = any(group.by_session for group in self.groups)


def _group(store: LimitStore, limits: list[Limit]) -> Group:
    by_session = any(limit.by == "session" for limit in limits)
    return Group(store, limits, by_session, any(limit.methods is not None for limit in limits))


class ViewLimits(NamedTuple):
    """What a view's option says."""

    route: str | None
    label: str
    limits: LimitSet  # all that hold for the view
    own: list[Limit]

    @property
    def is_exempt(self) -> bool:
        return not self.limits.groups


class LimitBook:
    """Makes the limits, and sees to it that no two share a counter unless they share a name.

    :param session: whose store serves the limits that name none; ``None``: there is none.
    :param resolve: imports a dotted name.
    """

    def __init__(
        self,
        session: SessionLike | None,
        application: Application,
        resolve: Callable[[str], Any],
    ) -> None:
        self.watch = ProcessWatch()
        self._session = session
        self.session_store = None if session is None else LimitStore(session.driver)
        self._application = application
        self._resolve = resolve
        self._stores: dict[str, LimitStore] = {}
        self._limits: dict[str, Limit] = {}

    @property
    def limits(self) -> list[Limit]:
        return list(self._limits.values())

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the keys of counters end with."""
        return tuple(limit.suffix for limit in self._limits.values())

    def add_application(self, listed: Sequence[Options]) -> list[Limit]:
        """Return the limits of the setting; the first counts at identity + ``key_suffix``."""
        limits = [
            self._add(
                options,
                SETTING if len(listed) == 1 else f"{SETTING}[{at}]",
                options["name"] or self._free_name(options["by"], options),
                is_first=at == 0,
            )
            for at, options in enumerate(listed)
        ]
        return _checked_distinct(SETTING, limits)

    def add_view(self, listed: Sequence[Options], place: str, scope: str) -> list[Limit]:
        """Return the limits of a view; one that bears the name of another with equal options is it.

        :param place: the view, for messages.
        :param scope: the route's or view's name, for limits that have none.
        """
        limits = [
            self._add(options, place, options["name"] or self._free_name(scope, options))
            for options in listed
        ]
        return _checked_distinct(place, limits)

    def _free_name(self, scope: str, options: Options) -> str:
        name = derived_name(scope, options)
        if name not in self._limits:
            return name
        number = 2
        while f"{name}-{number}" in self._limits:
            number += 1
        return f"{name}-{number}"

    def _add(self, options: Options, place: str, name: str, is_first: bool = False) -> Limit:
        known = self._limits.get(name)
        if known is not None:
            return _checked_equal(known, options, place)
        suffix = options["key_suffix"] if is_first else f"{options['key_suffix']}::{name}"
        if suffix in self.suffixes:
            raise ConfigurationError(
                f"{place}: key_suffix: {suffix!r} ends the counter's key of another limit too; "
                "leave it out, or write another one"
            )
        store = self._store(options, place)
        limit = make_limit(options, place, name, suffix, store, self._resolve)
        self._limits[name] = limit
        if self._session is not None:
            self._session.reserve(suffix)
        return limit

    def _store(self, options: Options, place: str) -> LimitStore:
        if options["kvs"] is None:
            return self._store_of_session(options, place)
        key = repr([options[name] for name in ("kvs", "kvs_kwargs", "key_prefix")])
        if key not in self._stores:
            driver = build_driver(SETTING, {**options, "ttl": None}, self._application, place)
            self.watch.add(driver)
            self._stores[key] = LimitStore(driver)
        return self._stores[key]

    def _store_of_session(self, options: Options, place: str) -> LimitStore:
        if options["kvs_kwargs"]:
            raise ConfigurationError(
                f"{place}: kvs_kwargs: found {show(options['kvs_kwargs'])} but no 'kvs': name "
                'the driver of the limit\'s own store, for example "kvs": "redis"'
            )
        if self.session_store is None:
            raise ConfigurationError(
                f"{place}: 'kvs' is missing, and there is no kvs.session whose store could be "
                'used: set kvs.session, or name a store, for example "kvs": "redis"'
            )
        self.watch.add(self.session_store.driver)
        return self.session_store


def _checked_equal(known: Limit, options: Options, place: str) -> Limit:
    if _without_add(known.options) != _without_add(options):
        raise ConfigurationError(
            f"{place}: name: {known.name!r} is the name of another limit with other options; "
            "limits of one name are one limit, with one counter"
        )
    return known


def _without_add(options: Options) -> Mapping[str, Any]:
    return {key: value for key, value in options.items() if key != "add"}


def _checked_distinct(place: str, limits: list[Limit]) -> list[Limit]:
    names = [limit.name for limit in limits]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"{place}: name: {name!r} stands twice; each limit of a list has its own name"
            )
    return limits

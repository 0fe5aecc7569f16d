"""The limits of an application and of its views, each with its own name and counters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from pyramid.exceptions import ConfigurationError
from pyramid.request import Request

from ..application import Application
from ..messages import show
from ..stores import build_driver
from .identity import SessionSource
from .limits import Limit, derived_name, make_limit
from .settings import OPTIONS, SETTING, Options, ViewOption, read_setting, read_view_option
from .store import LimitStore


class Group(NamedTuple):
    """Limits that one store counts in one call."""

    store: LimitStore
    limits: list[Limit]
    #: Whether one of them counts by session.
    by_session: bool
    #: Whether one of them does not apply to some requests.
    is_conditional: bool
    #: Whether one of them counts by the status of the response.
    by_outcome: bool

    def applying(self, request: Request) -> list[Limit]:
        return [limit for limit in self.limits if limit.applies(request)]


class LimitSet:
    """Limits that apply together, grouped by their stores."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = list(dict.fromkeys(limits))
        by_store: dict[LimitStore, list[Limit]] = {}
        for limit in self.limits:
            by_store.setdefault(limit.store, []).append(limit)
        self.groups = [_group(store, found) for store, found in by_store.items()]
        self.by_session = any(group.by_session for group in self.groups)
        self.by_address = any(limit.by_address for limit in self.limits)

    @property
    def early(self) -> LimitSet:
        """Those that can be counted before a view is found."""
        return LimitSet([limit for limit in self.limits if not limit.is_late])

    @cached_property
    def of_preflights(self) -> LimitSet:
        """Those that count the preflights of CORS, because they name their method."""
        return LimitSet([limit for limit in self.limits if "OPTIONS" in (limit.methods or ())])

    def without(self, others: Collection[Limit]) -> LimitSet:
        """Return the limits that are not among others."""
        return LimitSet([limit for limit in self.limits if limit not in others])


def _group(store: LimitStore, limits: list[Limit]) -> Group:
    return Group(
        store,
        limits,
        by_session=any(limit.by == "session" for limit in limits),
        is_conditional=any(limit.is_conditional for limit in limits),
        by_outcome=any(limit.outcomes is not None for limit in limits),
    )


class ViewLimits(NamedTuple):
    """The limits of a view that has the option."""

    label: str
    #: All that apply to the view.
    limits: LimitSet


class LimitRegistry:
    """Makes the limits; no two of them share a counter unless they have the same name.

    :param session: its store is used by limits that name no store.
    :param resolve: imports a dotted name.
    """

    def __init__(
        self,
        session: SessionSource | None,
        application: Application,
        resolve: Callable[[str], Any],
    ) -> None:
        #: The limits that apply where no view has the option.
        self.application = LimitSet([])
        #: The views that have the option.
        self.views: list[ViewLimits] = []
        self._session = session
        self._application = application
        self.session_store: LimitStore | None = None
        if session is not None:
            self.session_store = LimitStore(session.driver, application.registry)
        self._resolve = resolve
        self._stores: dict[str, LimitStore] = {}
        self._limits: dict[str, Limit] = {}
        self._of_routes: dict[str | None, list[Limit]] = {}

    @property
    def limits(self) -> list[Limit]:
        return list(self._limits.values())

    def add_setting(self, value: Any) -> None:
        """Read ``kvs.ratelimit``. Its first limit counts at the identity and ``key_suffix``.

        :param value: JSON, an object, or a list of objects.
        """
        listed = read_setting(value)
        limits = [
            self._add(
                options,
                SETTING if len(listed) == 1 else f"{SETTING}[{index}]",
                options["name"] or self._free_name(options["by"], options),
                is_first=index == 0,
            )
            for index, options in enumerate(listed)
        ]
        _check_distinct(SETTING, limits)
        self.application = LimitSet(limits)

    def add_view(self, option: ViewOption) -> ViewLimits:
        """Read the option of a view, and return the limits of the view."""
        listed = read_view_option(option)
        own = self._limits_of_view(option, listed)
        is_added = any(options["add"] for options in listed)
        limits = self.application.limits + own if is_added else own
        found = ViewLimits(option.label, LimitSet(limits))
        self.views.append(found)
        return found

    def _limits_of_view(self, option: ViewOption, listed: list[Options]) -> list[Limit]:
        """Return the limits of an option; all views of a route share those of the route."""
        if option.is_of_route and option.route in self._of_routes:
            return self._of_routes[option.route]
        limits = [
            self._add(
                options, option.place, options["name"] or self._free_name(option.scope, options)
            )
            for options in listed
        ]
        _check_distinct(option.place, limits)
        if option.is_of_route:
            self._of_routes[option.route] = limits
        return limits

    def _free_name(self, scope: str, options: Options) -> str:
        name = derived_name(scope, options)
        if name not in self._limits:
            return name
        number = 2
        while f"{name}-{number}" in self._limits:
            number += 1
        return f"{name}-{number}"

    def _add(self, options: Options, place: str, name: str, is_first: bool = False) -> Limit:
        """Return the limit of this name, which is made if there is none."""
        known = self._limits.get(name)
        if known is not None:
            return _checked_equal(known, options, place)
        suffix = options["key_suffix"] if is_first else f"{options['key_suffix']}::{name}"
        if any(suffix == limit.suffix for limit in self._limits.values()):
            raise ConfigurationError(
                f"{place}: key_suffix: the keys of another limit's counters end with {suffix!r} "
                "too: leave it out, or write another one"
            )
        store = self._store(options, place)
        limit = make_limit(options, place, name, suffix, store, self._resolve)
        store.strategies.add(limit.rule.strategy)
        self._limits[name] = limit
        if self._session is not None:
            self._session.reserve(suffix)
        return limit

    def _store(self, options: Options, place: str) -> LimitStore:
        if options["kvs"] is None:
            return self._default_store(options, place)
        key = repr([options[name] for name in ("kvs", "kvs_kwargs", "key_prefix")])
        if key not in self._stores:
            driver = build_driver(SETTING, {**options, "ttl": None}, self._application, place)
            self._stores[key] = LimitStore(driver, self._application.registry)
        return self._stores[key]

    def _default_store(self, options: Options, place: str) -> LimitStore:
        """Return the store of the application's first limit, or else of the session."""
        _refuse_store_options(options, place)
        for limit in self.application.limits[:1]:  # empty while these are read
            return limit.store
        if self.session_store is None:
            raise ConfigurationError(
                f"{place}: 'kvs' is missing, and there is no kvs.session whose store could be "
                'used: set kvs.session, or name a store, for example "kvs": "redis"'
            )
        return self.session_store


def _refuse_store_options(options: Options, place: str) -> None:
    """Refuse options of a separate store, which have no effect without a driver."""
    for key in ("kvs_kwargs", "key_prefix"):
        if options[key] != OPTIONS[key].default:
            raise ConfigurationError(
                f"{place}: {key}: found {show(options[key])} but no 'kvs': name the driver of the "
                'limit\'s store, for example "kvs": "redis"'
            )


def _checked_equal(known: Limit, options: Options, place: str) -> Limit:
    if _without_add(known.options) != _without_add(options):
        raise ConfigurationError(
            f"{place}: name: {known.name!r} is the name of another limit with other options; "
            "limits with the same name are one limit, with one counter"
        )
    return known


def _without_add(options: Options) -> Mapping[str, Any]:
    return {key: value for key, value in options.items() if key != "add"}


def _check_distinct(place: str, limits: list[Limit]) -> None:
    names = [limit.name for limit in limits]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"{place}: name: duplicate name {name!r}; each limit of a list needs its own name"
            )

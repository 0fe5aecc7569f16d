"""``request.perlsess``: the session that a Perl application stored, by the id in its cookie."""

from __future__ import annotations

import logging
import math
import re
import time
import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from webob.cookies import parse_cookie  # type: ignore[attr-defined]

from ..application import Application, RequestFeature
from ..exceptions import CodecError, KVSConflict, KVSError, KVSNotSupported
from ..kvs import KVS, Stored, pause
from ..logs import fingerprint
from ..stores import build_driver, parse, read_options, warn_of_unsigned_pickle
from ..web.failures import answer_failed_save
from ..web.headers import add_vary
from .records import REMOVED, Changes, Key, Record, fast_snapshot, is_same, records
from .settings import OPTIONS, SETTING

__all__ = ["PerlSession", "PerlSessionFactory", "WritablePerlSession"]

log = logging.getLogger("pyramid_kvs.perlsess")

#: Characters of a cookie's value that are looked at at all.
LONGEST_ID = 1024
#: How often a save tries again after another writer was quicker.
SAVE_ATTEMPTS = 50

_CONTAINERS = (dict, list)


class PerlSession(Mapping[Key, Any]):
    """A read-only view of the Perl session of a request; the first use reads the store.

    Keys and values are what :func:`pyramid_kvs.storable.thaw` makes of the image. Empty where there
    is no session; ``id`` and ``is_found`` tell more.

    :raises KVSUnavailable: on first use, when the store is away.
    """

    # Every request makes one of these, and few use it: what it starts with is the class's.
    _values: dict[Key, Any] | None = None
    _record: Record | None = None
    _id: str | None = None

    def __init__(self, factory: PerlSessionFactory, request: Request) -> None:
        self._factory = factory
        self._request = weakref.ref(request)  # the request holds the session

    @property
    def id(self) -> str | None:
        """The id in the cookie; ``None``: no cookie, or no possible id."""
        self._loaded()
        return self._id

    @property
    def is_found(self) -> bool:
        """Whether the store has a session under the id, which may be empty."""
        self._loaded()
        return self._record is not None

    def __getitem__(self, key: Key) -> Any:
        return self._loaded()[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def __repr__(self) -> str:
        state = "not read" if self._values is None else f"{len(self._values)} keys"
        return f"<{type(self).__name__}: {state}>"

    def _loaded(self) -> dict[Key, Any]:
        return self._load() if self._values is None else self._values

    def _load(self) -> dict[Key, Any]:
        request = self._request()
        if request is None:
            raise RuntimeError("request.perlsess was first used after the end of its request")
        self._id = self._factory.find_id(request)
        self._record = None if self._id is None else self._factory.load(self._id)
        self._values = {} if self._record is None else self._factory.visible(self._record)
        request.add_response_callback(self._finish)
        return self._values

    def _finish(self, request: Request, response: Response) -> None:
        """Say to caches that the response depends on the cookie."""
        add_vary(response.headerlist, "Cookie")


class WritablePerlSession(PerlSession, MutableMapping[Key, Any]):
    """A Perl session that is saved when it changed, in the form in which Perl stored it.

    It changes the session that Perl made, and never makes one: an id that the client chose would
    become a login. Only the changed keys are written; what Perl changed meanwhile stays.

    :raises KVSError: on a change, when there is no session.
    """

    _before: dict[Key, Any]
    _snapshot: bytes | None = None
    _gave_container = False

    def _load(self) -> dict[Key, Any]:
        values = super()._load()
        self._before = dict(values)
        return values

    def __getitem__(self, key: Key) -> Any:
        value = self._loaded()[key]
        if not self._gave_container and isinstance(value, _CONTAINERS):
            self._snapshot = fast_snapshot(self._before)
            self._gave_container = True
        return value

    def __setitem__(self, key: Key, value: Any) -> None:
        if not isinstance(key, (str, bytes)):
            raise TypeError(f"a key of a Perl session is str or bytes, not {type(key).__name__}")
        self._changeable()[key] = value

    def __delitem__(self, key: Key) -> None:
        del self._changeable()[key]

    def _changeable(self) -> dict[Key, Any]:
        values = self._loaded()
        if self._record is None:
            raise KVSError(
                "the request brings no session of the Perl application, so there is nothing to "
                "change: look at request.perlsess.is_found first, and let Perl start the session"
            )
        return values

    def _finish(self, request: Request, response: Response) -> None:
        super()._finish(request, response)
        try:
            self._save()
        except (KVSError, TypeError) as error:
            answer_failed_save(request, response, error, log, "a Perl session")

    def _save(self) -> None:
        if self._values is None or self._record is None or self._id is None:
            return
        changes = self._changes(self._record, self._values)
        if changes.values:
            self._factory.save(self._id, self._record, changes)

    def _changes(self, record: Record, values: dict[Key, Any]) -> Changes:
        changes = Changes({key: REMOVED for key in self._before if key not in values})
        changes.objects = record.objects
        mutated = self._mutated(record)
        for key, value in values.items():
            if key in mutated:
                changes.values[key] = value
                changes.mutated.add(key)
            elif key not in self._before or _is_other(value, self._before[key]):
                changes.values[key] = value
        return changes

    def _mutated(self, record: Record) -> set[Key]:
        """Return the keys whose list or dict is the one that was read, with other content."""
        if not self._gave_container:
            return set()
        if self._snapshot is not None and fast_snapshot(self._before) == self._snapshot:
            return set()
        original = self._factory.records.read_again(record)
        return {
            key
            for key, value in self._before.items()
            if isinstance(value, _CONTAINERS)
            and (self._values or {}).get(key) is value
            and not is_same(value, original.get(key))
        }


def _is_other(value: Any, before: Any) -> bool:
    if value is before:
        return False
    return isinstance(value, _CONTAINERS) or not is_same(value, before)


class PerlSessionFactory:
    """Makes the Perl session of a request, as the options of ``kvs.perlsess`` say.

    :param options: checked options of the setting.
    :param renews: whether a save gives the session the ttl of the options; else it keeps what
        is left of its life.
    :raises ConfigurationError: the options do not go together.
    """

    def __init__(self, options: Mapping[str, Any], driver: KVS, renews: bool = False) -> None:
        self.driver = driver
        self.records = records(driver.codec, options)
        self._cookie_name: str = options["cookie_name"]
        self._key_format: str = options["key_format"]
        self._is_id = re.compile(options["id_pattern"]).fullmatch
        self._kind = WritablePerlSession if options["writable"] else PerlSession
        self._renews = renews
        if options["writable"] and options["fallback_codec"] is not None:
            raise ConfigurationError(
                f"{SETTING}: writable and fallback_codec do not go together: a session is saved in "
                "the form it was read in"
            )

    def __call__(self, request: Request) -> PerlSession:
        return self._kind(self, request)

    # -- the id

    def find_id(self, request: Request) -> str | None:
        """Return the session id in the request's cookie; ``None``: no cookie, or no possible id.

        The value as it stands, or percent-decoded once, as CGI::Cookie encodes it.
        """
        value = self._cookie(request)
        if not value:
            return None
        if len(value) <= LONGEST_ID:
            for candidate in (value, unquote_to_bytes(value).decode("latin-1")):
                if self._is_id(candidate):
                    return candidate
        log.warning("perlsess: the value of the cookie is no session id (id_pattern)")
        return None

    def _cookie(self, request: Request) -> str | None:
        """Return the cookie's value; of several, the first, as Perl's cookie modules do."""
        header = request.environ.get("HTTP_COOKIE")
        if header is None:
            value: str | None = request.cookies.get(self._cookie_name)
            return value
        if self._cookie_name not in header:
            return None
        name = self._cookie_name.encode("latin-1", "replace")
        for found, value_bytes in parse_cookie(header):
            if found == name:
                return str(value_bytes, "latin-1")
        return None

    # -- the store

    def load(self, session_id: str) -> Record | None:
        """Return the stored session; where there is none, log why."""
        stored = self.driver.raw_load(self._key(session_id))
        if stored is None:
            self._warn(session_id, "the store has no such session")
            return None
        return self._read(session_id, stored)

    def _read(self, session_id: str, stored: Stored) -> Record | None:
        try:
            record = self.records.read(stored)
        except CodecError as error:
            self._warn(session_id, f"it does not decode: {error}")
            return None
        if record.is_expired(time.time()):
            self._warn(session_id, "Perl's module noted in it that it is expired")
            return None
        return record

    @staticmethod
    def visible(record: Record) -> dict[Key, Any]:
        """Return a copy of the values, without those that CGI::Session would drop on a read."""
        gone = record.expired_keys(time.time())
        return {key: value for key, value in record.values.items() if key not in gone}

    def save(self, session_id: str, record: Record, changes: Changes) -> None:
        """Store the changes; those that others made to other keys meanwhile stay.

        :param record: what was loaded.
        :raises StorableError: a value has no form in Perl, or a changed one holds what Python
            values cannot say.
        :raises KVSConflict: others changed the session again and again.
        :raises KVSUnavailable: the store is away.
        """
        key = self._key(session_id)
        ttl = self._ttl(key)
        for attempt in range(SAVE_ATTEMPTS):
            data, flags = self.records.edit(record, changes, self._form(record, ttl))
            swap = self.driver.raw_swap(key, record.stored, data, ttl, flags)
            if swap.done:
                return
            current = swap.current and self._read(session_id, swap.current)
            if current is None:
                self._warn(session_id, "it went away during the request, its changes are dropped")
                return
            record, changes = current, replace(changes, mutated=set())
            pause(attempt)
        raise KVSConflict(f"the Perl session changed {SAVE_ATTEMPTS} times during one save")

    def _form(self, record: Record, ttl: float | None) -> Any:
        return record.form.renewed(time.time(), ttl) if self._renews else record.form

    def _ttl(self, key: str) -> float | None:
        """Return the ttl that a save gives: whole seconds, as Perl's clients can read."""
        ttl = self.driver.ttl
        if not self._renews:
            try:
                left = self.driver.raw_ttl(key)
            except KVSNotSupported as error:
                raise KVSNotSupported(
                    f"{error}: write a ttl into the setting {SETTING}, which each save then gives"
                ) from error
            ttl = left if left > 0 else None
        return None if ttl is None else math.ceil(ttl)

    def _key(self, session_id: str) -> str:
        return self._key_format.replace("{id}", session_id)

    @staticmethod
    def _warn(session_id: str, message: str) -> None:
        log.warning("perlsess: session %s: %s", fingerprint(session_id), message)


def perlsess_of(registry: Registry) -> PerlSessionFactory | None:
    """Return the factory of an application, or ``None`` if ``kvs.perlsess`` is not set."""
    return Application.of(registry).features.get(SETTING)


def _build(registry: Registry) -> tuple[PerlSessionFactory, dict[str, object]]:
    value = parse(SETTING, registry.settings[SETTING])
    options = read_options(SETTING, value, OPTIONS)
    driver = build_driver(SETTING, options, Application.of(registry))
    warn_of_unsigned_pickle(SETTING, options)
    factory = PerlSessionFactory(options, driver, renews="ttl" in value)
    return factory, {name: options[name] for name in ("kvs", "key_prefix", "format", "writable")}


FEATURE = RequestFeature(SETTING, _build, lambda factory: factory)


def includeme(config: Configurator) -> None:
    """Add ``request.perlsess``."""
    FEATURE.add_to(config)


def subscribe_perlsess(event: Any) -> None:
    """Put ``perlsess`` on the request of an event; see :func:`pyramid_kvs.subscribe_perlsess`."""
    FEATURE.subscribe(event)

"""The session of a Perl application in a request."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from ..exceptions import KVSError
from ..web.attempts import is_repeated
from ..web.failures import answer_failed_save
from ..web.headers import add_vary
from .comparison import changed_keys, is_same_scalar, snapshot
from .cookie import IdCookie
from .records import REMOVED, Changes, Key, Record, Values
from .store import PerlSessionStore

log = logging.getLogger("pyramid_kvs.perlsess")

_CONTAINERS = (dict, list)


class PerlSession(Mapping[Key, Any]):
    """A read-only view of the Perl session of a request; the first use reads the store.

    Keys and values are the result of :func:`pyramid_kvs.storable.thaw`. The mapping is empty if
    there is no session; ``id`` and ``is_found`` say more. The first use may also come after the
    end of the request.

    :raises KVSUnavailable: on first use, if the store is unavailable.
    """

    # Each request creates one, and few use it. These attributes start as those of the class.
    _values: Values | None = None
    _record: Record | None = None
    _id: str | None = None

    def __init__(self, cookie: IdCookie, store: PerlSessionStore, request: Request) -> None:
        self._cookie = cookie
        self._store = store
        self._request = weakref.ref(request)  # the request holds the session
        self._cookie_header = request.environ.get("HTTP_COOKIE")  # for after its end

    @property
    def id(self) -> str | None:
        """The id in the cookie. ``None`` if there is no cookie, or its value cannot be an id."""
        self._loaded()
        return self._id

    @property
    def is_found(self) -> bool:
        """Whether the store has a session with this id. The session may be empty."""
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

    def _loaded(self) -> Values:
        return self._load() if self._values is None else self._values

    def _load(self) -> Values:
        request, cookie = self._request(), self._cookie
        self._id = cookie.find_in(self._cookie_header) if request is None else cookie.find(request)
        self._record = None if self._id is None else self._store.load(self._id)
        self._values = {} if self._record is None else self._record.visible_values(time.time())
        if request is not None:
            request.add_response_callback(self._finish)
        return self._values

    def _finish(self, request: Request, response: Response) -> None:
        """Tell caches that the response depends on the cookie."""
        add_vary(response.headerlist, "Cookie")


class WritablePerlSession(PerlSession, MutableMapping[Key, Any]):
    """A Perl session that is saved if it changed, in the form in which Perl stored it.

    It changes a session that Perl created, and never creates one, because an id that the client
    chose would become a login. Only the changed keys are written. Changes that Perl made to other
    keys in the meantime are kept.

    :raises KVSError: on a change, if there is no session.
    """

    _before: Values
    _snapshot: bytes | None = None
    _gave_container = False

    def _load(self) -> Values:
        values = super()._load()
        self._before = dict(values)
        return values

    def __getitem__(self, key: Key) -> Any:
        value = self._loaded()[key]
        if not self._gave_container and isinstance(value, _CONTAINERS):
            self._snapshot = snapshot(self._before)
            self._gave_container = True
        return value

    def __setitem__(self, key: Key, value: Any) -> None:
        if not isinstance(key, (str, bytes)):
            raise TypeError(f"a key of a Perl session is str or bytes, not {type(key).__name__}")
        self._changeable()[key] = value

    def __delitem__(self, key: Key) -> None:
        del self._changeable()[key]

    def _changeable(self) -> Values:
        values = self._loaded()
        if self._record is None:
            raise KVSError(
                "the request has no session of the Perl application that could be changed: check "
                "request.perlsess.is_found first, and let Perl create the session"
            )
        return values

    def _finish(self, request: Request, response: Response) -> None:
        super()._finish(request, response)
        if is_repeated(request):
            return
        try:
            self._save()
        except (KVSError, TypeError) as error:
            answer_failed_save(request, response, error, self._store.failed_saves)

    def _save(self) -> None:
        if self._values is None or self._record is None or self._id is None:
            return
        changes = self._changes(self._record, self._values)
        if changes.values:
            self._store.save(self._id, self._record, changes)

    def _changes(self, record: Record, values: Values) -> Changes:
        changes = Changes({key: REMOVED for key in self._before if key not in values})
        changes.objects = record.objects
        changes.mutated = self._mutated(record, values)
        for key, value in values.items():
            if key in changes.mutated or self._is_replaced(key, value):
                changes.values[key] = value
        return changes

    def _is_replaced(self, key: Key, value: Any) -> bool:
        if key not in self._before:
            return True
        before = self._before[key]
        if value is before:
            return False
        return isinstance(value, _CONTAINERS) or not is_same_scalar(value, before)

    def _mutated(self, record: Record, values: Values) -> set[Key]:
        """Return the keys whose value is the list or dict that was read, with other content."""
        if not self._gave_container:
            return set()
        if self._snapshot is not None and snapshot(self._before) == self._snapshot:
            return set()
        kept = {
            key: value
            for key, value in self._before.items()
            if isinstance(value, _CONTAINERS) and values.get(key) is value
        }
        return changed_keys(kept, self._store.read_again(record))

"""``request.session``: loaded on first use, saved by a response callback if it changed."""

from __future__ import annotations

import logging
import time
import weakref
from typing import TYPE_CHECKING, Any

from pyramid.interfaces import ISession
from pyramid.request import Request
from pyramid.response import Response
from zope.interface import implementer

from ..exceptions import KVSError
from ..kvs import KVS, Stored
from ..serializer import Data
from ..web.failures import answer_failed_save
from ..web.headers import add_vary
from .mapping import CSRF_TOKEN, SessionMapping
from .merge import (
    CREATED,
    META,
    USER,
    Changes,
    Record,
)
from .store import Loaded, Save, Written, created_at
from .users import EPOCH, user_digest

if TYPE_CHECKING:
    from . import SessionFactory

log = logging.getLogger("pyramid_kvs.session")


@implementer(ISession)
class Session(SessionMapping):
    """A session, as one request sees it; use :class:`CookieSession` or :class:`AuthTokenSession`.

    Values that are changed in place are found without :meth:`changed`. Nothing is read from the
    store before the first use, and nothing written before the response.
    """

    __slots__ = (
        "__weakref__", "_base", "_closed", "_exists", "_factory", "_forget", "_found",
        "_is_last", "_is_loaded", "_is_new", "_is_saved", "_key", "_old", "_request", "_secret",
        "_stamp",
    )  # fmt: skip

    def __init__(self, request: Request, factory: SessionFactory) -> None:
        super().__init__(factory.store.dumps)
        self._request = request
        self._factory = factory
        self._is_loaded = False
        self._is_saved = False
        #: Whether the save was put off once, to the end of the response's callbacks.
        self._is_last = False
        #: Whether a save failed or was dropped: there will be no other in this request.
        self._closed = False
        self._secret: str | None = None
        self._forget = False
        self._restart()

    def _restart(self) -> None:
        """Go on with an empty session, at a key that is not known yet."""
        self._key: str | None = None
        self._old: Loaded | None = None
        self._data = {}
        self._meta = {CREATED: time.time()}
        self._found: Loaded | None = None
        self._base: Data | None = None
        #: Whether the store has the session, as far as is known.
        self._exists = False
        self._is_new = True
        self._stamp = True
        self._forget_changes()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{'' if self._is_loaded else ', not loaded'}>"

    # -- attributes -----------------------------------------------------------------------

    @property
    def client(self) -> KVS:
        """The driver."""
        return self._factory.driver

    @property
    def key_name(self) -> str | list[str]:
        """The cookie's name; the header's name or names."""
        return self._factory.key_name

    @property
    def created(self) -> int:
        """When the session began, in seconds of the epoch."""
        self._use()
        return int(self._meta[CREATED])

    @property
    def new(self) -> bool:
        """Whether the store did not know the session."""
        self._use()
        return self._is_new

    def get_session_key(self) -> str | None:
        """Return the key of the session in the store, without the prefix.

        ``None`` for a header session without the header.
        """
        self._use()
        return self._home()

    # -- life -----------------------------------------------------------------------------

    def invalidate(self) -> None:
        """Remove the session from the store, now, and go on with an empty one.

        The browser forgets the cookie unless something is stored afterwards, under a new id.

        :raises KVSUnavailable: the session may still be there.
        """
        if not self._is_loaded:
            self._secret = self._find_secret()
        keys = self._lookup_keys() if self._old is None else [self._old.key]
        self._watch()
        self._watched = self._is_loaded  # while the removal may fail
        for key in dict.fromkeys(keys):
            self.client.raw_delete(key)
        self._watched = self._is_loaded = True
        self._restart()
        self._forget = True

    def bind(self, user_id: str | int) -> None:
        """Tie the session to a user, at login, so that it can be listed and ended with others.

        ``1`` and ``"1"`` are the same user. Call :meth:`regenerate_id` too.
        """
        user = user_digest(user_id)
        self._use()
        if self._meta.get(USER) != user:
            self._meta[USER] = user
            self._meta.pop(EPOCH, None)
            self._touched.update((USER, EPOCH))

    def regenerate_id(self) -> None:
        """Go on under a new id, with a new CSRF token, when the response is sent.

        From then on the old id is as unknown as any.
        """
        if CSRF_TOKEN in self._use():
            self.new_csrf_token()
        self._leave_key()
        self._secret = None
        self._key = None

    def is_bound_to(self, user: str) -> bool:
        """Return whether the session is tied to the user of that digest."""
        self._use()
        return self._meta.get(USER) == user

    def set_metadata(self, key: str, value: Any) -> None:
        """Change what is hidden from the mapping methods."""
        self._meta[key] = value
        self._touched.add(key)

    def store_keys(self) -> list[str]:
        """Return the keys under which the session may lie in the store now."""
        self._use()
        old = [] if self._old is None else [self._old.key]
        return old + self._lookup_keys()

    # -- loading --------------------------------------------------------------------------

    def _use(self) -> Record:
        """Return the data, which are loaded first; see to it that changes will be saved."""
        if not self._watched:
            self._watch()
            if not self._is_loaded:
                self._watched = False  # while the load may fail
                self._load()
                self._watched = True
        return self._data

    def _watch(self) -> None:
        if not (self._watched or self._closed):
            self._watched = True
            try:
                self._request.add_response_callback(self._save_last)
            except ReferenceError:  # the request is over: nobody will ask for a save
                return

    def _load(self) -> None:
        self._secret = self._find_secret()
        found = None
        if self._secret is not None:
            preloaded = self._factory.preloaded(self._request)
            found = self._factory.store.load(self._lookup_keys(), preloaded)
        if found is not None and self._is_over(found):
            found = None
        self._is_loaded = True
        if found is None:
            self._restart()
        else:
            self._adopt(found)

    def _is_over(self, found: Loaded) -> bool:
        if self._factory.store.is_over(found.record):
            self.client.raw_swap(found.key, found.stored, None, None)
            self._forget = True
            return True
        return USER in found.record and self._factory.users.is_ended(found.record)

    def _adopt(self, found: Loaded) -> None:
        factory, record = self._factory, found.record
        self._found = found
        self._base = found.stored.data
        self._exists = True
        self._is_new = False
        self._meta = {key: record.pop(key) for key in list(record) if key[:6] == META}
        self._data = record
        self._key = found.key
        self._stamp = created_at(self._meta) is None
        if self._stamp:
            self._meta[CREATED] = time.time()
            self._changed = factory.store.absolute_ttl is not None
        if USER in self._meta and factory.users.is_stale(self._meta):
            self._touched.add(USER)
        if factory.keys.moves and self._lookup_keys()[0] != found.key:
            self._leave_key()
            self._key = self._lookup_keys()[0]

    def _leave_key(self) -> None:
        """Have the record at the present key removed once it is saved under another."""
        if self._old is None and self._exists:
            if self._found is None:
                self._found = self._load_again()
            self._old = self._found

    def _load_again(self) -> Loaded | None:
        """Return what this request saved before, as it stands now."""
        if self._key is None:
            return None
        stored = self.client.raw_load(self._key)
        record = None if stored is None else self._factory.store.decode(stored.data)
        return None if stored is None or record is None else Loaded(self._key, stored, record)

    def _lookup_keys(self) -> list[str]:
        if self._secret is None:
            return []
        return self._factory.keys.all(self._scope(), self._secret)

    # -- saving ---------------------------------------------------------------------------

    def _save_last(self, request: Request, response: Response) -> None:
        """Save after the callbacks that were added since: they may change what they hold."""
        if request.response_callbacks and not self._is_last:
            self._is_last = True
            request.add_response_callback(self._save_last)
        else:
            self.save_session(request, response)
            # Request and session held by each other would wait for the garbage collector, which
            # takes longer than to load the session: 7 of 50 microseconds of a request.
            self._request = weakref.proxy(request)

    def save_session(self, request: Request, response: Response) -> None:
        """Save what changed, and add the headers.

        When the save fails, the response becomes that of the exception's view: 503 where the
        store is away.
        """
        self._watched = False
        if self._closed:
            return
        try:
            self.save()
        except (KVSError, TypeError) as error:
            self._closed = self._watched = True
            answer_failed_save(request, response, error, log, "a session")
        else:
            self._add_headers(response)
        for name in self._factory.vary:
            add_vary(response.headerlist, name)

    def save(self) -> None:
        """Save what changed."""
        if not self._is_loaded:
            return
        changes = self._changes()
        is_removed = changes.is_cleared and self._exists
        if not (changes.values or self._changed or self._old or is_removed):
            return
        key = self._home()
        if key is None:
            self._drop_without_key()
            return
        if self._stamp:
            changes.values[CREATED] = self._meta[CREATED]
        if USER in self._meta and (USER in changes.values or self._old):
            self._enter(key, changes)
        self._settle(key, self._write(Save(key, self._base, self._record(), changes)))

    def _record(self) -> Record:
        return {**self._data, **self._meta}

    def _enter(self, key: str, changes: Changes) -> None:
        entered = self._factory.users.enter(self._meta[USER], key, self._meta)
        self._meta.update(entered)
        changes.values.update(entered)

    def _write(self, save: Save) -> Written | None:
        store = self._factory.store
        if self._old is None:
            return store.write(save, self._stored_now(save.key))
        there = self._find_moved(save.key)
        return store.move(save, self._old, there)

    def _stored_now(self, key: str) -> Stored | None:
        if self._found is not None:
            return self._found.stored
        return self.client.raw_load(key) if self._base is not None else None

    def _find_moved(self, key: str) -> Stored | None:
        """Return what a parallel request has moved to the new key, where that can be."""
        return self.client.raw_load(key) if self._factory.keys.moves else None

    def _settle(self, key: str, written: Written | None) -> None:
        self._old = None
        if written is None:
            self._closed = self._watched = True
            self._exists = self._forget = False
        elif written.data is None:
            self._forget = self._forget or self._exists
            self._restart()
        else:
            self._key = key
            self._base = written.data
            self._exists = self._is_saved = True
            self._found = None
            self._stamp = False
            self._forget_changes()

    # -- what differs between cookies and headers -------------------------------------------

    def _find_secret(self) -> str | None:
        """Return the id or token that the request brought, or ``None``."""
        raise NotImplementedError

    def _scope(self) -> str:
        """Return what stands before the token in the session key."""
        return ""

    def _home(self) -> str | None:
        """Return the key to save under; make the id where the session has none."""
        raise NotImplementedError

    def _drop_without_key(self) -> None:
        """Say that changes have no place to go."""

    def _add_headers(self, response: Response) -> None:
        """Tell the client what became of the session."""

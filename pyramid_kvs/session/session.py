"""``request.session``: read on first use, and saved by a response callback if it changed.

The module :mod:`.state` has the table of the states of a session.
"""

from __future__ import annotations

import logging
import sys
import time
import weakref

from pyramid.interfaces import ISession
from pyramid.request import Request
from pyramid.response import Response
from pyramid.threadlocal import manager
from zope.interface import implementer

from .. import events
from ..exceptions import SessionConflict
from ..kvs import KVS
from ..web.attempts import is_repeated, may_repeat, repeats
from ..web.failures import answer_failed_save
from ..web.late import may_follow
from .backend import SessionBackend
from .csrf import first_token
from .keys import SessionId, random_id
from .mapping import CSRF_TOKEN, SessionMapping
from .merge import REMOVED, Changes, Tracker, difference
from .records import CREATED, EPOCH, META, SENT, USER, Record, take_metadata
from .state import CLOSED, NEW, OPEN, SAVED, UNTOUCHED, StoreState
from .store import Written
from .users import user_digest

log = logging.getLogger("pyramid_kvs.session")


@implementer(ISession)
class Session(SessionMapping):
    """The session of one request; the subclasses of :mod:`.kinds` can change its id.

    Values that are changed in place are found without :meth:`changed`. Nothing is read from the
    store before the first use, and nothing is written before the response.
    """

    __slots__ = (
        "__weakref__",
        "_has_waited",
        "_is_cookie_due",
        "_is_late",
        "_keys_to_erase",
        "_request",
        "_state",
        "backend",
    )

    def __init__(self, request: Request, backend: SessionBackend) -> None:
        self._request = request
        self.backend = backend
        self._phase = UNTOUCHED
        self._state = NEW
        #: Whether changes may come after the callback that saves.
        self._is_late = False
        #: Of ended sessions, until the response shows that this attempt is not repeated.
        self._keys_to_erase: tuple[str, ...] = ()

    def __del__(self) -> None:
        if self._is_late:
            self._warn_of_unsaved()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{', not loaded' if self._phase is UNTOUCHED else ''}>"

    # -- attributes -----------------------------------------------------------------------

    @property
    def client(self) -> KVS:
        """The driver."""
        return self.backend.driver

    @property
    def key_name(self) -> str | list[str]:
        """The name of the cookie; the name or names of the header."""
        return self.backend.key_name

    @property
    def created(self) -> int:
        """When the session began, in seconds since 1970."""
        self._use()
        return int(self._meta[CREATED])

    @property
    def new(self) -> bool:
        """Whether the store did not have the session."""
        self._use()
        return self._state.is_new

    def get_session_key(self) -> str | None:
        """Return the key of the session in the store, without the prefix.

        It is ``None`` for a header session without the header.
        """
        self._use()
        self._state = self.backend.with_key(self._state)
        return self._state.key

    # -- from phase to phase; see the table of :mod:`.state` ------------------------------

    def _use(self) -> Record:
        phase = self._phase
        if phase is not OPEN and phase is not CLOSED:
            self._save_with_response()
            if phase is UNTOUCHED:
                state, record = self.backend.load(self._request)
                self._begin(state, record)
            self._phase = OPEN
            if phase is UNTOUCHED and "_kvs_expired" in self._request.__dict__:
                self.backend.tell_expired(self._request)
        return self._data

    def _begin(self, state: StoreState, record: Record) -> None:
        """Go on with a record, which is empty for a new session, and without changes."""
        backend = self.backend
        self._state = state
        self._data = record
        self._tracker = None
        #: Whether the response of a session that is known to the store sends the cookie.
        self._is_cookie_due = True
        if backend.keys.are_migrated and state.is_moving:
            self._tracked()  # so that a save moves the record
        if not record:
            self._meta = {CREATED: time.time()}
            return
        self._meta = meta = take_metadata(record)
        if CREATED not in meta:
            meta[CREATED] = time.time()
            if backend.store.absolute_ttl is not None:
                self._tracked().is_forced = True
        if backend.carrier.refresh is not None:
            self._is_cookie_due = not self._is_late and self._needs_cookie(backend.carrier.refresh)
            if self._is_cookie_due:
                self._tracked().is_forced = True

    def _needs_cookie(self, refresh: float) -> bool:
        """Return whether the client was last sent its id too long ago, or has another one."""
        # A time in the future is from a server whose clock was wrong.
        age = abs(time.time() - self._meta.get(SENT, 0))
        return age >= refresh or self.backend.was_moved_for(self._request)

    def invalidate(self) -> None:
        """Remove the session from the store immediately, and go on with an empty one.

        In an attempt that pyramid_retry may repeat, it is removed with the response instead.

        If another request has just changed the id, the session is removed under the new id too. The
        browser deletes the cookie, unless something is stored afterwards under a new id.

        :raises KVSUnavailable: the session may still be in the store.
        """
        if self._remove(may_wait=True):
            self.backend.tell(self._request, events.SessionEnded, "invalidated")

    def forget(self) -> None:
        """Go on with an empty session, because this one was ended together with others."""
        self._remove(may_wait=False)

    def _remove(self, may_wait: bool) -> bool:
        """Remove the session as :meth:`invalidate` does; return whether the store had it.

        :param may_wait: in an attempt that may be repeated, remove it with the response instead.
        """
        phase, state, carrier = self._phase, self._state, self.backend.carrier
        if phase is UNTOUCHED:
            state = self.backend.load_to_remove(self._request)
        if phase is UNTOUCHED or phase is SAVED:
            self._save_with_response()
        removed = state.session_id if state.found is None else state.found.session_id
        keys, erased = self.backend.keys_of(removed), False
        if keys and may_repeat(self._request) and may_wait:
            self._erase_later(keys)
        else:
            erased = bool(self.backend.store.erase(keys))
        self._begin(state.removed(carrier.adopt(state.session_id)), {})
        self.backend.tell_outer_requests(self._request, state, self._state)
        self._phase = CLOSED if phase is CLOSED else OPEN
        if phase is UNTOUCHED and "_kvs_expired" in self._request.__dict__:
            self.backend.tell_expired(self._request)
        return erased

    def _erase_later(self, keys: list[str]) -> None:
        if not self._keys_to_erase:
            self._request.add_finished_callback(self._erase_at_end)
        self._keys_to_erase += tuple(keys)

    def _erase_now(self) -> None:
        keys, self._keys_to_erase = self._keys_to_erase, ()
        if self.backend.store.erase(list(keys)):
            self.backend.tell(self._request, events.SessionEnded, "invalidated")

    def _erase_at_end(self, request: Request) -> None:
        """Remove the records although the request has no response, unless it is repeated."""
        error = sys.exc_info()[1] or request.exception
        if self._keys_to_erase and not (error and repeats(request, error)):
            self._erase_now()

    def _move_to(self, session_id: SessionId | None) -> None:
        """Go on with another id; ``None`` means a new one. The next save moves the record."""
        self._state = self._state.moving(session_id)
        self._is_cookie_due = True
        self._tracked()  # so that a save moves the record

    def save(self) -> bool:
        """Save what changed now, without waiting for the response.

        A change that comes after the response callbacks needs this call, for example one in a
        generator that makes the body, or in a thread.

        :returns: whether there was anything to save. It is ``False``, too, if the session was
            ended, or an earlier save of this request failed, so that nothing can be saved.
        :raises KVSUnavailable: the session may not be saved.
        :raises KVSError: the session cannot be saved.
        :raises TypeError: the codec cannot write a value. The message names the value's key.
        """
        if self._phase is UNTOUCHED or self._phase is CLOSED:
            return False
        is_late, self._is_late = self._is_late, False  # whoever gets an error needs no log line
        is_saved = self._save()
        self._is_late = is_late
        return is_saved

    def _save(self) -> bool:
        if self._keys_to_erase:
            self._erase_now()
        changes, state = self._unsaved(), self._state
        if changes is None:
            return False
        if state.away_at is not None:
            self._drop_away()
            return False
        if state.key is None:
            self._state = state = self.backend.with_key(state)
            if state.key is None:
                self._drop_without_id()
                return False
        record = self._complete(changes, state.key)
        try:
            written = self.backend.save(state, record, changes)
        except SessionConflict:
            self.backend.tell(self._request, events.SessionConflict, False)
            raise
        self._settle(record, written)
        if len(manager.stack) > 1:  # which is rare: this may be a subrequest
            self.backend.tell_outer_requests(self._request, state, self._state)
        try:
            registry = self._request.registry
        except (AttributeError, ReferenceError):  # no registry, or the request has ended
            registry = self.backend.registry
        if written is not None and registry is not None and registry.has_listeners:
            self.backend.tell_saved(registry, self._request, state, changes, written)
        return written is not None and (not written.is_as_read or state.is_moving)

    def _settle(self, record: Record, written: Written | None) -> None:
        """Note the outcome of a save.

        :param record: the record to store if no other request has saved the session.
        """
        state, backend = self._state, self.backend
        if written is None:
            self._state, self._phase = state.lost(), CLOSED
        elif written.data is None:
            adopted = backend.carrier.adopt(state.session_id)
            self._begin(state if state.found is None else state.removed(adopted), {})
        else:
            if written.record is not record:
                self._take_over(record, written.record)
            self._state = state.saved(written.key, written.data)
            assert self._tracker is not None  # it has noted what there was to save
            self._tracker.saved = written.data

    def _save_with_response(self) -> None:
        request = self._request
        self._has_waited = False
        try:
            # Pyramid's router creates the queue, and has emptied it when the last callback runs.
            callbacks = request.__dict__.get("response_callbacks")
            self._is_late = callbacks is not None and not callbacks
            request.add_response_callback(self._save_last)
        except ReferenceError:  # the request has ended
            self._is_late = True

    def _save_last(self, request: Request, response: Response) -> None:
        if request.response_callbacks and not self._has_waited:
            # Wait once for callbacks that were added since, because they may change the session.
            self._has_waited = True
            request.add_response_callback(self._save_last)
            return
        if getattr(request, "exception", None) is not None and is_repeated(request):
            self._phase = CLOSED
        self.save_session(request, response)
        self._is_late = (
            self._phase is SAVED
            and self._tracker is not None  # otherwise nobody has a value that could change
            and may_follow(request, response)
        )
        # If request and session referred to each other, the garbage collector would have to free
        # them. This takes longer than to load the session: 7 of the 50 microseconds of a request.
        self._request = weakref.proxy(request)

    def save_session(self, request: Request, response: Response) -> None:
        """Save what changed, and add the headers.

        If the save fails, the response becomes the response of the exception's view, which is a
        503 if the store is unavailable.
        """
        carrier, is_done = self.backend.carrier, False
        if self._phase is OPEN or self._phase is SAVED:
            self._phase = SAVED  # before subscribers of events can use the session again
            try:
                if self._tracker is not None or self._keys_to_erase:  # else there is nothing to do
                    self._save()
                is_done = True
            except Exception as error:  # noqa: BLE001  # functions of change() raise anything
                self._phase = CLOSED
                answer_failed_save(request, response, error, self.backend.failed_saves)
        state, is_due = (self._state, self._is_cookie_due) if is_done else (None, False)
        carrier.add_headers(request, response.headerlist, state, is_due)

    def _warn_of_unsaved(self) -> None:
        if self._phase is not UNTOUCHED and self._phase is not CLOSED and self._is_unsaved():
            self.backend.unsaved_log.warning(
                "a session was changed after its response was complete, and the change is lost: "
                "call session.save() after a change in a generator, a NewResponse subscriber, a "
                "finished callback or a thread"
            )

    def _is_unsaved(self) -> bool:
        if self._state.away_at is not None:  # nothing can be saved
            return False
        if self._unsaved() is None:
            return False
        found, codec = self._state.found, self.backend.store.codec
        if self._state.session_id is None or found is None:
            return True
        stored = codec.decode(found.data) or {}
        values = {key: value for key, value in stored.items() if key[:6] != META}
        is_rebound = stored.get(USER) != self._meta.get(USER)
        return is_rebound or bool(difference(values, self._data, codec.dumps).values)

    def _first_csrf_token(self) -> str:
        if CSRF_TOKEN in self._tracked().touched:  # this request has removed another one
            return random_id()
        return first_token(self._state, self.backend.carrier.client_chooses)

    # -- saving ---------------------------------------------------------------------------

    def _tracked(self) -> Tracker:
        tracker = self._tracker
        if tracker is None:
            tracker = self._tracker = Tracker(self.backend.store.codec)
        elif tracker.saved is not None:
            tracker = self._tracker = tracker.after_save()
        return tracker

    def _unsaved(self) -> Changes | None:
        """Return the changes that a save has to store; ``None`` if it has nothing to do."""
        tracker, state = self._tracker, self._state
        if tracker is None:
            return None
        if tracker.saved is not None:
            tracker = self._tracked()
        changes = tracker.changes(self._data, self._meta)
        if changes.values or tracker.is_forced or state.is_moving:
            return changes
        is_removal = changes.is_cleared and (state.found or state.away_at) is not None
        return changes if is_removal else None

    def _complete(self, changes: Changes, key: str) -> Record:
        """Add metadata to the changes; return the record to store."""
        meta, values = self._meta, changes.values
        values[CREATED] = meta[CREATED]
        if self._is_cookie_due and self.backend.carrier.refresh is not None:
            values[SENT] = meta[SENT] = int(time.time())
        if USER in meta and (USER in values or self._state.is_moving):
            entered = self.backend.users.enter(
                meta[USER], key, meta, self.backend.ttl_of(self._state)
            )
            meta.update(entered)
            values.update(entered)
        return {**self._data, **meta}

    def _take_over(self, record: Record, stored: Record) -> None:
        """Take over changes of other requests, which a save has merged with the record.

        Values stay the same objects where possible, because the application may have references
        to them.
        """
        changes = difference(record, stored, self.backend.store.codec.dumps)
        for key, value in changes.values.items():
            part = self._meta if key.startswith(META) else self._data
            if value is REMOVED:
                del part[key]
            else:
                part[key] = self._tracked().taken_over(key, part.get(key, REMOVED), value)

    def _drop_without_id(self) -> None:
        log.warning(
            "a session was changed in a request without the header %s: the change is dropped",
            " or ".join(self.backend.carrier.vary),
        )
        self._tracker = None

    def _drop_away(self) -> None:
        [key, *_] = self.backend.keys_of(self._state.session_id)
        self.backend.store.log_dropped(key, has_moved=True)
        self._state, self._phase = self._state.lost(), CLOSED

    # -- the user -------------------------------------------------------------------------

    def bind(self, user_id: str | int) -> None:
        """Assign the session to a user, at login, so that it can be listed and ended with others.

        ``1`` and ``"1"`` are the same user. Call :meth:`regenerate_id` too.
        """
        user = user_digest(user_id)
        self._use()
        if self._meta.get(USER) != user:
            self._meta[USER] = user
            self._meta.pop(EPOCH, None)
            self._tracked().touched.update((USER, EPOCH))

    def is_bound_to(self, user: str) -> bool:
        """Return whether the session is assigned to the user with this digest."""
        self._use()
        return self._meta.get(USER) == user

    def set_metadata(self, values: Record) -> None:
        """Change what the mapping methods hide."""
        self._use()
        self._meta.update(values)
        self._tracked().touched.update(values)

    def is_stored_as(self, key: str, record: Record) -> bool:
        """Return whether a record in the store is this session, perhaps moved to another key."""
        self._use()
        is_same = record.get(CREATED) == self._meta[CREATED]
        return is_same or key == self._state.away_at or key in self.store_keys()

    def store_keys(self) -> set[str]:
        """Return the keys that the session may have in the store now."""
        self._use()
        state = self._state
        found = None if state.found is None else state.found.session_id
        return {*self.backend.keys_of(found), *self.backend.keys_of(state.session_id)}

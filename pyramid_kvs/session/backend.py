"""What all sessions of an application share."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pyramid.registry import Registry
from pyramid.request import Request

from ..events import Event, SessionConflict, SessionEnded, SessionIdRenewed, SessionStarted, notify
from ..exceptions import KVSError
from ..kvs import KVS, Stored, new_tuple
from ..logs import ThrottledLog
from ..web.failures import FailedSaves
from ..web.subrequests import outer_requests
from .carriers import Carrier
from .keys import Lookup, SessionId, SessionKeys
from .merge import Changes
from .records import USER, Record
from .state import NEW, StoreState
from .store import Moved, Preloaded, Save, SessionStore, Written
from .users import Users


@dataclass(frozen=True)
class SessionBackend:
    """The parts of which the sessions of an application are made."""

    #: The option of this name.
    key_name: str | list[str]
    driver: KVS
    carrier: Carrier
    keys: SessionKeys
    store: SessionStore
    users: Users
    #: Of the application whose setting describes the sessions.
    registry: Registry | None = None
    failed_saves: FailedSaves = field(
        default_factory=lambda: FailedSaves(logging.getLogger("pyramid_kvs.session"), "a session")
    )
    #: Says that changes after the response need a call of ``session.save()``.
    unsaved_log: ThrottledLog = field(
        default_factory=lambda: ThrottledLog(logging.getLogger("pyramid_kvs.session"))
    )

    def lookups(self, request: Request) -> list[Lookup]:
        """Return the keys that the session of a request may have, in the order to try them."""
        found, candidates = [], self.carrier.candidates(request)
        if not self.carrier.client_chooses:  # the session need not look for the cookie again
            sent = request.environ.get("HTTP_COOKIE")
            request.__dict__["_kvs_candidates"] = sent, candidates
        key_of = self.keys.key_to_save_under
        for session_id in candidates:
            key, ttl = key_of(session_id), self.store.lifetimes.of(session_id)
            found.append(new_tuple(Lookup, (key, ttl, key)))
            if not self.keys.has_one_form:
                found += [Lookup(other, ttl, key) for other in self.keys.others(session_id, key)]
        return found

    def keys_of(self, session_id: SessionId | None) -> list[str]:
        """Return the keys that a session with this id may have; none if there is no id."""
        return [] if session_id is None else self.keys.all(session_id)

    def preload(self, request: Request, key: str, stored: Stored | None) -> bool:
        """Let the session of a request use data that were already read, instead of reading them.

        :param key: of one of :meth:`lookups`.
        :param stored: what ``driver.raw_load(key, ttl)`` returned during this request.
        :returns: whether the store knows the session.
        """
        request.__dict__.setdefault("_kvs_preloaded", {})[key] = stored
        if stored is None:
            return False
        if self.store.codec.is_plain(stored):
            return True
        if self.users.refreshes and self.store.codec.may_have(stored, USER):
            request.add_finished_callback(self._finish)
        return self.store.is_session(key, stored)

    def _finish(self, request: Request) -> None:
        """Enter a session again that the request kept alive, but did not use."""
        if "_kvs_preloaded" in request.__dict__:
            with suppress(KVSError):  # nobody waits for it, and a later request does it
                self.load(request)
                if "_kvs_expired" in request.__dict__:
                    self.tell_expired(request)

    def load(self, request: Request) -> tuple[StoreState, Record]:
        """Return the state and the record of a request's session; the record may be empty.

        If the client sent several ids, it is the first session that the store knows.
        """
        attributes = request.__dict__
        preloaded: Preloaded | None = attributes.pop("_kvs_preloaded", None)
        known = attributes.pop("_kvs_candidates", None)
        if known is not None and known[0] and known[0] is request.environ.get("HTTP_COOKIE"):
            candidates: list[SessionId] = known[1]
        else:
            candidates = self.carrier.candidates(request)
        if "_kvs_moved" in attributes:
            candidates = self._followed(request, candidates)
        if len(candidates) == 1:
            return self._load(request, candidates[0], preloaded)
        absent = None
        for session_id in candidates:
            loaded = self._load(request, session_id, preloaded)
            if loaded[0].found is not None:
                return loaded
            if absent is None or loaded[0].away_at is not None:
                absent = loaded
        return absent or (NEW, {})

    def _followed(self, request: Request, candidates: list[SessionId]) -> list[SessionId]:
        """Return the ids that the client sent, or those to which subrequests moved."""
        moved: dict[SessionId, SessionId] = request.__dict__.get("_kvs_moved", {})
        return [moved.get(found, found) for found in candidates]

    def was_moved_for(self, request: Request) -> bool:
        """Return whether a subrequest gave the session an id that the client may not know."""
        return "_kvs_moved" in request.__dict__

    def tell_outer_requests(
        self, request: Request, old: StoreState = NEW, new: StoreState = NEW
    ) -> None:
        """Have requests that wait for this subrequest read the store as it is now.

        A request that has read its session already keeps what it has read.

        :param old: what the store had before a save.
        :param new: what it has now.
        """
        for outer in outer_requests(request):
            outer.__dict__.pop("_kvs_preloaded", None)
            if old.found and new.found and old.found.session_id != new.found.session_id:
                moved = outer.__dict__.setdefault("_kvs_moved", {})
                moved[old.found.session_id] = new.found.session_id

    def load_to_remove(self, request: Request) -> StoreState:
        """Return the state of a session that is removed next, if possible without reading it."""
        candidates = self._followed(request, self.carrier.candidates(request))
        if len(candidates) > 1:
            return self.load(request)[0]
        return StoreState.absent(candidates[0] if candidates else None)

    def _load(
        self,
        request: Request,
        session_id: SessionId,
        preloaded: Preloaded | None,
        is_again: bool = False,
    ) -> tuple[StoreState, Record]:
        if self.keys.has_one_form:
            key_of = self.keys.key_to_save_under
            loaded = self.store.look(session_id, key_of(session_id), preloaded)
        else:
            loaded = self.store.load(session_id, preloaded)
        if loaded is None:
            return StoreState.absent(self.carrier.adopt(session_id)), {}
        if isinstance(loaded, Moved):
            return StoreState.away(session_id, loaded.key), {}
        found, record = loaded
        if self.store.absolute_ttl is not None and self.store.is_over(record):
            if self.store.remove(found):
                request.__dict__["_kvs_expired"] = True
            return StoreState.absent(self.carrier.adopt(session_id), is_removed=True), {}
        if USER in record:
            if self.users.is_ended(record):
                if not is_again:  # it may have been spared between its load and this answer
                    return self._load(request, session_id, None, is_again=True)
                return StoreState.absent(self.carrier.adopt(session_id)), {}
            if self.users.is_stale(record):
                found, record = self.users.enter_again(
                    found, record, self.store.lifetimes.of(found.session_id)
                )
        key = self.keys.key_to_save_under(found.session_id) if self.keys.are_migrated else found.key
        # The state ``loaded``; see the table of the module state.
        return new_tuple(StoreState, (session_id, key, found, False, False, False, None)), record

    # -- events ---------------------------------------------------------------------------

    def tell(self, request: Request, event: Callable[..., Event], *facts: object) -> None:
        """Notify the subscribers of an event of a session, if there are any."""
        try:
            registry = request.registry
        except (AttributeError, ReferenceError):  # no registry, or the request has ended
            registry = self.registry
        if registry is not None and registry.has_listeners:
            notify(registry, event(_alive(request), *facts))

    def tell_expired(self, request: Request) -> None:
        """Notify the subscribers of a session that was over when :meth:`load` read it.

        They may use the session, which :meth:`load` has to finish first.
        """
        del request.__dict__["_kvs_expired"]
        self.tell(request, SessionEnded, "expired")

    def tell_saved(
        self,
        registry: Registry,
        request: Request,
        before: StoreState,
        changes: Changes,
        written: Written,
    ) -> None:
        """Notify the subscribers of what a save did to a session.

        :param before: what the store had, with the key to save under.
        """
        request, found = _alive(request), before.found
        if changes.has_clashed:
            notify(registry, SessionConflict(request, is_saved=True))
        if written.data is None:
            if found is not None:
                notify(registry, SessionEnded(request, "cleared"))
        elif found is None:
            if self.store.has_begun(written):
                notify(registry, SessionStarted(request))
        elif found.session_id != before.session_id and _is_first_renewal(request):
            notify(registry, SessionIdRenewed(request))

    # -- saving ---------------------------------------------------------------------------

    def with_key(self, state: StoreState) -> StoreState:
        """Return the state with a key to save under, and with a new id if it has none.

        Without an id, a header session gets no key.
        """
        if state.key is not None:
            return state
        session_id = state.session_id or self.carrier.new_id()
        if session_id is None:
            return state
        return state.with_key(session_id, self.keys.key_to_save_under(session_id))

    def ttl_of(self, state: StoreState) -> float | None:
        """Return the ttl that a save gives a session whose state has an id."""
        assert state.session_id is not None
        return self.store.lifetimes.of(state.session_id)

    def save(self, state: StoreState, record: Record, changes: Changes) -> Written | None:
        """Save a session; see :meth:`SessionStore.save`.

        :param state: with a key.
        """
        assert state.key is not None
        assert state.session_id is not None
        found, ttl = state.found, self.store.lifetimes.of(state.session_id)
        if found is None:
            return self.store.save(Save(state.key, ttl, None, record, changes), None)
        others = () if self.keys.has_one_form else self.keys.others(found.session_id, found.key)
        enter = self.users.enter
        values = state.key, ttl, found.data, record, changes, others, enter, None, False, False
        save = new_tuple(Save, values)
        if found.key != state.key:
            is_new_id = found.session_id != state.session_id
            save = save._replace(
                user=record.get(USER),
                is_new_key=True,
                is_private=is_new_id and not self.carrier.client_chooses,
            )
        return self.store.save(save, found)


def _alive(request: Request) -> Request | None:
    """Return the request itself for a weak reference to it; ``None`` if it has ended."""
    if type(request) not in weakref.ProxyTypes:
        return request
    try:
        return request.add_response_callback.__self__
    except ReferenceError:
        return None


def _is_first_renewal(request: Request | None) -> bool:
    """Return whether the id is renewed for the first time in a request.

    Otherwise a subscriber that renews the id again would never come to an end.
    """
    if request is None:
        return True
    is_first = "_kvs_id_renewed" not in request.__dict__
    request.__dict__["_kvs_id_renewed"] = True
    return is_first

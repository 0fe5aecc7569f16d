"""What all sessions of an application share."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field

from pyramid.request import Request

from ..exceptions import KVSError
from ..kvs import KVS, Stored
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
    failed_saves: FailedSaves = field(
        default_factory=lambda: FailedSaves(logging.getLogger("pyramid_kvs.session"), "a session")
    )
    #: Says that changes after the response need a call of ``session.save()``.
    unsaved_log: ThrottledLog = field(
        default_factory=lambda: ThrottledLog(logging.getLogger("pyramid_kvs.session"))
    )

    def lookups(self, request: Request) -> list[Lookup]:
        """Return the keys that the session of a request may have, in the order to try them."""
        found = []
        for session_id in self.carrier.candidates(request):
            key, ttl = self.keys.key_to_save_under(session_id), self.store.lifetimes.of(session_id)
            found.append(Lookup(key, ttl, key))
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

    def load(self, request: Request) -> tuple[StoreState, Record]:
        """Return the state and the record of a request's session; the record may be empty.

        If the client sent several ids, it is the first session that the store knows.
        """
        attributes = request.__dict__
        preloaded: Preloaded | None = attributes.pop("_kvs_preloaded", None)
        candidates = self.carrier.candidates(request)
        if "_kvs_moved" in attributes:
            candidates = self._followed(request, candidates)
        if len(candidates) == 1:
            return self._load(candidates[0], preloaded)
        absent = None
        for session_id in candidates:
            loaded = self._load(session_id, preloaded)
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
        self, session_id: SessionId, preloaded: Preloaded | None, is_again: bool = False
    ) -> tuple[StoreState, Record]:
        loaded = self.store.load(session_id, preloaded)
        if loaded is None:
            return StoreState.absent(self.carrier.adopt(session_id)), {}
        if isinstance(loaded, Moved):
            return StoreState.away(session_id, loaded.key), {}
        found, record = loaded
        if self.store.is_over(record):
            self.store.remove(found)
            return StoreState.absent(self.carrier.adopt(session_id), is_removed=True), {}
        if USER in record:
            if self.users.is_ended(record):
                if not is_again:  # it may have been spared between its load and this answer
                    return self._load(session_id, None, is_again=True)
                return StoreState.absent(self.carrier.adopt(session_id)), {}
            if self.users.is_stale(record):
                found, record = self.users.enter_again(
                    found, record, self.store.lifetimes.of(found.session_id)
                )
        key = self.keys.key_to_save_under(found.session_id) if self.keys.are_migrated else found.key
        return StoreState.loaded(found, key), record

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
        others = self.keys.others(found.session_id, found.key)
        save = Save(state.key, ttl, found.data, record, changes, others, self.users.enter)
        if state.is_moving:
            is_new_id = found.session_id != state.session_id
            save = save._replace(
                user=record.get(USER),
                is_new_key=True,
                is_private=is_new_id and not self.carrier.client_chooses,
            )
        return self.store.save(save, found)

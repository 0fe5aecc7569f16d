"""``get_or_create`` after its first look at the store: claim, wait, compute, store."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from ..exceptions import CodecError, KVSError, KVSNotSupported, KVSUnavailable
from ..kvs import Claim, Data
from .creations import Creations, patience
from .store import Store

log = logging.getLogger("pyramid_kvs.cache")

#: How long others wait for a creator by default, and how long its claim lives, in seconds.
WAIT = 10

#: How long nobody calls a creator that failed while an old value is kept, in seconds.
PAUSE = 5.0

#: The seconds between two looks at the store while another process computes.
POLL = (0.005, 0.02)

NOT_CLAIMED = Claim(None)


class Creating:
    """A call of ``get_or_create`` that found no value, or has to replace an old one.

    In a process, one caller at a time has the turn of the key. The others wait for it, and only
    the one that has it asks the store. Among processes, one has the claim of the key, and the
    others look at the store until it has a value.

    :param ttl: of the new value; ``None`` means that it never expires.
    """

    def __init__(
        self,
        store: Store,
        creations: Creations,
        key: str,
        creator: Callable[[], Any],
        ttl: float | None,
        stale: float,
        wait: float,
    ) -> None:
        self._store = store
        self._client = store.client
        self._creations = creations
        self._key = key
        self._creator = creator
        self._ttl = ttl
        self._stale = stale
        self._lifetime = wait or WAIT
        self._until = patience(wait)

    def replace(self, claim: Claim) -> Any:
        """Compute the value that replaces an old one, which this caller has claimed."""
        with self._creations.turn(self._key, 0) as turn:
            data = self._compute(claim)
            if turn is not None:
                self._creations.end(self._key, turn, data)
            return self._client.decode(data)

    def create(self, is_readable: bool) -> Any:
        """Compute the value, or wait until another caller has done so.

        :param is_readable: whether the store answered. If not, nothing is written to it.
        """
        with self._creations.turn(self._key, self._until) as turn:
            if turn is None:
                return self._client.decode(self._compute(NOT_CLAIMED if is_readable else None))
            data = turn.data
            if data is None:
                data = self._creations.end(self._key, turn, self._found_or_computed(is_readable))
            return self._client.decode(data)

    def _found_or_computed(self, is_readable: bool) -> Data:
        claim = self._claim() if is_readable else None
        if claim is not None and claim.owner is None and self._is_valid(claim.data):
            return claim.data  # type: ignore[return-value]
        return self._compute(claim)

    def _claim(self) -> Claim | None:
        """Wait for data or for the claim; return what there is in the end.

        :returns: ``None`` if the store is unavailable.
        """
        try:
            claim = self._client.raw_claim(self._key, self._stale, self._lifetime)
            if claim.owner is not None or self._is_valid(claim.data):
                return claim
            with suppress(KVSNotSupported):  # a driver that cannot remove keys
                self._make_claimable(claim)
            return self._wait_for_claim()
        except KVSUnavailable as error:
            self._store.drop(error)
            return None

    def _wait_for_claim(self) -> Claim:
        while True:
            claim = self._client.raw_claim(self._key, self._stale, self._lifetime)
            left = self._until - monotonic()
            if claim.data is not None or claim.owner is not None or left <= 0:
                return claim
            time.sleep(min(left, random.uniform(*POLL)))

    def _make_claimable(self, claim: Claim) -> None:
        """Remove what keeps everybody from claiming a key that has no value."""
        if claim.data is None:  # it may have been removed in the pause after a failure
            self._client.raw_end_pause(self._key)
            return
        stored = self._client.raw_load(self._key)
        if stored is not None and not self._is_valid(stored.data):
            self._client.raw_swap(self._key, stored, None, None)

    def _is_valid(self, data: Data | None) -> bool:
        if data is None:
            return False
        try:
            self._client.decode(data)
        except CodecError:  # it was logged at the first look
            return False
        return True

    # -- computing ------------------------------------------------------------------------

    def _compute(self, claim: Claim | None) -> Data:
        """Call the creator and store what it returns; return the data.

        :param claim: ``None`` if the store is unavailable.
        """
        began = monotonic()
        try:
            value = self._creations.call(self._key, self._creator, self._lifetime)
        except Exception as error:
            if claim is None or claim.owner is None or not self._is_valid(claim.data):
                self._release(claim)
                raise
            self._release(claim, min(PAUSE, claim.left - (monotonic() - began)))
            log.warning(
                "cache key %r: its creator failed, and the old value is used: %s",
                self._key,
                type(error).__name__,
                exc_info=error,
            )
            return claim.data  # type: ignore[return-value]
        except BaseException:
            self._release(claim)
            raise
        return self._stored(claim, value)

    def _stored(self, claim: Claim | None, value: Any) -> Data:
        try:
            data = self._store.encode(self._key, value)
            if claim is not None:
                self._write(claim, data)
        except BaseException as error:
            self._release(claim)
            if not isinstance(error, KVSUnavailable):
                raise
            self._store.drop(error)
        return data

    def _write(self, claim: Claim, data: Data) -> None:
        ttl = self._ttl
        if ttl is not None and ttl <= 0:
            self._client.raw_delete(self._key)
            self._release(claim)
            return
        lasting = None if ttl is None else ttl + self._stale
        if claim.owner is None:
            self._client.raw_set(self._key, data, lasting)
        else:
            self._client.raw_set_claimed(self._key, data, lasting, claim.owner)

    def _release(self, claim: Claim | None, pause: float = 0) -> None:
        """Release the claim, if the store still answers. If not, the claim ends by itself."""
        if claim is not None and claim.owner is not None:
            with suppress(KVSError):
                self._client.raw_release(self._key, claim.owner, max(pause, 0))

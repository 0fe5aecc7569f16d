"""The postgresql driver: one table, and one statement and round trip for each operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...exceptions import KVSError
from ...kvs import (
    DONE,
    KVS,
    Breakers,
    Data,
    Stored,
    Swap,
    SwapRequest,
    decode_key,
    encode_key,
    key_pattern,
)
from ...kvs.stored import LONGEST_TTL
from .client import Client
from .columns import (
    BOOL,
    BYTEA,
    FLOAT8,
    array,
    batches,
    decode_data,
    encode_data,
    float8,
    from_float8,
    rows,
    seconds,
    stored_key,
)
from .options import Options, read_options
from .scan import ExpiredRows, scan
from .statements import Param, statements
from .tables import create_tables

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

#: A renewal within this part of the ttl, and this many seconds, is left out: a session that is
#: read all the time is not written all the time.
RENEWAL_SLACK = 0.1
RENEWAL_SLACK_SECONDS = 60.0

SCAN_ROWS = 10_000
FLUSH_ROWS = 1_000


class PostgresqlKVS(KVS):
    """Keys and values in one table of a PostgreSQL database.

    The server's clock decides what has expired. Expired rows are invisible at once. Some writes
    remove a few of them, and :meth:`purge` removes all.
    """

    has_clock = True

    _client: Client

    @classmethod
    def client_arguments(cls) -> frozenset[str]:
        return frozenset(Options._fields)

    def _create_client(self, **kwargs: Any) -> Client:
        options = read_options(kwargs)
        self._unlogged = options.unlogged
        self._statements = statements(options.table)
        client = Client(options)
        self._expired = ExpiredRows(client, self._statements["purge"])
        return client

    def share_breakers(self, breakers: Breakers) -> None:
        self._client.share_breakers(breakers)

    def places(self) -> frozenset[str]:
        table = self._client.table.removeprefix("public.")
        return frozenset(f"{place}/{table}" for place in self._client.databases())

    def addresses(self) -> list[str]:
        return [self._client.breaker.address]

    def connection_pools(self) -> list[Any]:
        return [self._client.pool]

    # -- one key --------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        result = self._run("get", (self._stored_key(key),), repeatable=True)
        return _data(result) if result.ntuples else default

    def raw_set(self, key: str, data: Data, ttl: float | None) -> None:
        self._run("set", self._row(key, data, ttl), repeatable=True)
        self._expired.note_written()

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        result = self._run("add", self._row(key, data, ttl))
        if result.ntuples:
            self._expired.note_written()
        return result.ntuples > 0

    def raw_delete(self, key: str) -> Data | None:
        result = self._run("delete", (self._stored_key(key),))
        is_live = result.ntuples and result.get_value(0, 2) == b"\x01"
        return _data(result) if is_live else None

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        result = self._run("incr", self._row(key, str(delta), ttl))
        self._expired.note_written()
        if not result.ntuples:
            raise KVSError("the value at this key is not an integer")
        return int(result.get_value(0, 0) or b"")

    def raw_ttl(self, key: str) -> float:
        result = self._run("ttl", (self._stored_key(key),), repeatable=True)
        return _left(result.get_value(0, 0)) if result.ntuples else -2.0

    def raw_ttl_many(self, keys: list[str]) -> dict[str, float]:
        found: dict[bytes | None, float] = {}
        by_key = {key: self._stored_key(key) for key in keys}
        for batch in batches(by_key.values(), len):
            result = self._run("ttl_many", (array(BYTEA, batch),), repeatable=True)
            found.update((stored, _left(left)) for stored, left in rows(result))
        return {key: found.get(stored, -2.0) for key, stored in by_key.items()}

    def raw_get_with_ttl(self, key: str) -> tuple[Data | None, float]:
        result = self._run("get_with_ttl", (self._stored_key(key),), repeatable=True)
        if not result.ntuples:
            return None, -1.0
        left = result.get_value(0, 2)
        return _data(result), -1.0 if left is None else from_float8(left)

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        params = (self._stored_key(key), seconds(ttl))
        return self._run("expire", params, repeatable=True).ntuples > 0

    # -- several keys ---------------------------------------------------------------------

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        by_stored = {self._stored_key(key): key for key in keys}
        found: dict[str, Data] = {}
        for batch in batches(by_stored, len):
            result = self._run("get_many", (array(BYTEA, batch),), repeatable=True)
            for key, data, is_text in rows(result):
                found[by_stored[key]] = decode_data(data, is_text)  # type: ignore[arg-type, index]
        return found

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        """Store data in batches, each of which is one transaction with a separate deadline."""
        rows = (self._row(key, data, None) for key, data in mapping.items())
        for batch in batches(rows, _length):
            keys, long_keys, datas, texts, _ = zip(*batch, strict=True)
            params = (
                array(BYTEA, keys),
                array(BYTEA, long_keys),
                array(BYTEA, datas),
                array(BOOL, texts),
                seconds(ttl),
            )
            self._run("set_many", params, repeatable=True)
            self._expired.note_written(len(batch))

    def raw_delete_many(self, keys: list[str]) -> None:
        for batch in batches(map(self._stored_key, keys), len):
            self._run("delete_many", (array(BYTEA, batch),), repeatable=True)

    # -- compare and set ------------------------------------------------------------------

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        """Return the data; see :meth:`KVS.raw_load`.

        :param renew: not written if more than 90 % of it is left, and all but a minute.
        """
        if renew is None:
            data = self.raw_get(key)
            return None if data is None else Stored(data)
        params = (self._stored_key(key), *_renewal(renew))
        result = self._run("load_renewed", params, repeatable=True)
        return Stored(_data(result)) if result.ntuples else None

    def raw_load_many(self, keys: list[str]) -> dict[str, Stored]:
        return {key: Stored(data) for key, data in self.raw_get_many(keys).items()}

    def raw_swap(
        self,
        key: str,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        flags: int | None = None,
    ) -> Swap:
        result = self._swap(key, old, data, ttl)
        if result is not None and result.ntuples and result.get_value(0, 0) == b"\x01":
            self._expired.note_written()
            return DONE
        current = None
        if result is not None and result.ntuples:
            current = Stored(_data(result, 1))
        if (current and current.data) == (old and old.data):
            # It changed while the statement ran, which shows the data from before that.
            current = self.raw_load(key)
        return Swap(data is None and old is None and current is None, current)

    def _swap(
        self, key: str, old: Stored | None, data: Data | None, ttl: float | None
    ) -> PGresult | None:
        if data is None:
            if old is None:
                return None
            return self._run("swap_removed", (self._stored_key(key), encode_data(old.data)[0]))
        if old is None:
            return self._run("swap_absent", self._row(key, data, ttl))
        params = (
            self._stored_key(key),
            encode_data(old.data)[0],
            *encode_data(data),
            seconds(ttl),
        )
        return self._run("swap", params)

    # -- several keys at once -------------------------------------------------------------

    def raw_load_with(
        self, key: str, renew: float | None, others: list[str]
    ) -> tuple[Stored | None, dict[str, Stored]]:
        if renew is None:
            found = self.raw_load_many([key, *others])
            return found.pop(key, None), found
        by_stored = {self._stored_key(each): each for each in (key, *others)}
        params = (
            self._stored_key(key),
            *_renewal(renew),
            array(BYTEA, list(by_stored)),
        )
        result = self._run("load_with", params, repeatable=True)
        found = {
            by_stored[stored]: Stored(decode_data(data, is_text))  # type: ignore[arg-type, index]
            for stored, data, is_text in rows(result)
        }
        return found.pop(key, None), found

    def raw_load_timed(
        self, key: str | None, renew: float | None, others: list[str]
    ) -> tuple[Stored | None, dict[str, Stored], int]:
        keys = others if key is None else [key, *others]
        by_stored = {self._stored_key(each): each for each in keys}
        params: tuple[Param, ...] = (array(BYTEA, list(by_stored)),)
        if key is None or renew is None:
            result = self._run("get_many_timed", params, repeatable=True)
        else:
            params = (self._stored_key(key), *_renewal(renew), *params)
            result = self._run("load_with_timed", params, repeatable=True)
        now_ms, found = 0, {}
        for stored, data, is_text in rows(result):
            if stored is None:
                now_ms = int(data or b"")
            else:
                found[by_stored[stored]] = Stored(decode_data(data or b"", is_text or b""))
        return None if key is None else found.pop(key, None), found, now_ms

    def raw_swap_many(self, swaps: list[SwapRequest]) -> list[Swap]:
        """Run several swaps in one statement, which takes its locks in the order of the keys."""
        columns = zip(*(self._swap_row(*swap) for swap in swaps), strict=True)
        types = (BYTEA, BYTEA, BYTEA, BYTEA, BOOL, FLOAT8)
        params = [array(oid, column) for oid, column in zip(types, columns, strict=True)]
        result = self._run("swap_many", params)
        self._expired.note_written()
        found = {key: rest for key, *rest in rows(result)}
        return [self._swapped(swap, found.get(self._stored_key(swap.key))) for swap in swaps]

    def _swap_row(
        self, key: str, old: Stored | None, data: Data, ttl: float | None
    ) -> tuple[bytes | None, ...]:
        row = self._row(key, data, ttl)
        return *row[:2], None if old is None else encode_data(old.data)[0], *row[2:]

    def _swapped(self, swap: SwapRequest, found: list[bytes | None] | None) -> Swap:
        if found is not None and found[0] == b"\x01":
            return DONE
        current = None if found is None else Stored(decode_data(found[1] or b"", found[2] or b""))
        if (current and current.data) == (swap.old and swap.old.data):
            current = self.raw_load(swap.key)  # see raw_swap
        return Swap(False, current)

    # -- all keys -------------------------------------------------------------------------

    def get_keys(self, pattern: str = "*") -> list[str]:
        matches = key_pattern(pattern).fullmatch
        start = len(self.key_prefix)
        keys = (decode_key(full_key[start:]) for full_key in self._scan("scan", pattern, SCAN_ROWS))
        return [key for key in keys if matches(key)]

    def flush(self) -> None:
        for _ in self._scan("flush", "*", FLUSH_ROWS):
            pass

    def _scan(self, name: str, pattern: str, count: int) -> Iterator[bytes]:
        statement = self._statements[name]
        return scan(self._client, statement, self.key_prefix, encode_key(pattern), count)

    def purge(self) -> int:
        """Remove all expired rows of the table; return how many there were.

        It runs in steps of one statement each, and skips rows that another transaction locked.
        """
        return self._expired.remove_all()

    # -- the store ------------------------------------------------------------------------

    def close(self) -> None:
        self._client.close()

    def initialize_schema(self, dry_run: bool = False) -> None:
        """Create the tables, unless they exist. Then no permission to create tables is needed."""
        create_tables(self._client, self._statements, self._unlogged, dry_run)

    # -- helpers --------------------------------------------------------------------------

    def _run(self, name: str, params: Sequence[Param] = (), repeatable: bool = False) -> PGresult:
        return self._client.run(self._statements[name], params, repeatable)

    def _stored_key(self, key: str) -> bytes:
        return stored_key(self._get_key(key))[0]

    def _row(
        self, key: str, data: Data, ttl: float | None
    ) -> tuple[bytes, bytes | None, bytes, bytes, bytes | None]:
        return *stored_key(self._get_key(key)), *encode_data(data), seconds(ttl)


def _renewal(ttl: float) -> tuple[bytes, bytes]:
    """Return a new ttl, and how much of it must be left for the row to stay as it is."""
    ttl = min(ttl, LONGEST_TTL)
    return float8(ttl), float8(ttl - min(ttl * RENEWAL_SLACK, RENEWAL_SLACK_SECONDS))


def _left(seconds: bytes | None) -> float:
    return -1.0 if seconds is None else from_float8(seconds)


def _length(row: Sequence[bytes | None]) -> int:
    return sum(len(column) for column in row if column)


def _data(result: PGresult, column: int = 0) -> Data:
    data = result.get_value(0, column)
    is_text = result.get_value(0, column + 1)
    return decode_data(data or b"", is_text or b"")

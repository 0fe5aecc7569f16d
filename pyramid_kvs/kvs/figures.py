"""What an observed operation is about: how many keys, hits, misses and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..serializer import Data
from .stored import Claim, Stored, Swap

Args = tuple[Any, ...]


class Call:
    """An operation that is under way.

    :param is_in_hook: whether a hook runs, whose figures include those of the hooks that it runs.
    """

    __slots__ = (
        *("args", "bytes_received", "bytes_sent", "driver", "hits", "is_in_hook", "is_told"),
        *("misses", "round_trips"),
    )

    def __init__(self, driver: Any, args: Args, is_in_hook: bool) -> None:
        #: ``None`` when the operation is over.
        self.driver = driver
        self.args = args
        self.is_in_hook = is_in_hook
        #: Whether listeners are being told. What they do with stores is not observed.
        self.is_told = False
        self.hits = self.misses = self.bytes_sent = self.bytes_received = 0
        self.round_trips = 0


#: The operation that this thread or greenlet runs.
current: ContextVar[Call | None] = ContextVar("pyramid_kvs_operation", default=None)


def note_round_trip() -> None:
    """Count a round trip of the operation that runs now, if it is observed."""
    call = current.get()
    if call is not None:
        call.round_trips += 1


class Kind(NamedTuple):
    """How a method of the contract is observed."""

    #: How many keys the operation is about, or what returns this from the arguments and the result.
    keys: int | Callable[[Args, Any], int]
    #: Adds what a hook did to the figures of the operation; ``None`` for a method that runs hooks.
    note: Callable[[Call, Args, Any], None] | None = None
    #: Returns the arguments to call the method with.
    prepare: Callable[[Args], Args] | None = None


# -- arguments ------------------------------------------------------------------------------


def _listed(args: Args) -> Args:
    """Return the arguments with a list of keys: reading them may be another operation."""
    return args if not args or hasattr(args[0], "__len__") else (list(args[0]), *args[1:])


def _with_change_outside(args: Args) -> Args:
    """Return the arguments of ``update``; operations in ``change`` do not belong to it."""
    if len(args) < 2:  # the call is about to raise TypeError
        return args
    key, change, *ttl = args

    def outside(value: Any) -> Any:
        call = current.get()
        current.set(None)
        try:
            return change(value)
        finally:
            current.set(call)

    return (key, outside, *ttl)


# -- figures ---------------------------------------------------------------------------------


def _many(args: Args, result: Any) -> int:
    return len(args[0])


def _one_and_others(args: Args, result: Any) -> int:
    return (args[0] is not None) + len(args[2])


def _size(data: Data) -> int:
    """Return the bytes of data, which a client may have turned into a number."""
    if type(data) is bytes:
        return len(data)
    if isinstance(data, str):
        return len(data) if data.isascii() else len(data.encode("utf-8", "surrogatepass"))
    return len(data) if isinstance(data, (bytes, bytearray, memoryview)) else len(str(data))


def _found(call: Call, data: Data | None) -> None:
    if data is None:
        call.misses += 1
    else:
        call.hits += 1
        call.bytes_received += _size(data)


def _got(call: Call, args: Args, data: Data | None) -> None:
    if data is None or (len(args) > 1 and data is args[1]):
        call.misses += 1
    else:
        call.hits += 1
        call.bytes_received += len(data) if type(data) is bytes else _size(data)


def _got_many(call: Call, args: Args, found: Mapping[str, Data]) -> None:
    call.hits += len(found)
    call.misses += len(args[0]) - len(found)
    call.bytes_received += sum(map(_size, found.values()))


def _got_with_ttl(call: Call, args: Args, found: tuple[Data | None, float]) -> None:
    _found(call, found[0])


def _loaded(call: Call, args: Args, stored: Stored | None) -> None:
    _found(call, None if stored is None else stored.data)


def _loaded_many(call: Call, args: Args, found: Mapping[str, Stored]) -> None:
    _got_many(call, args, {key: stored.data for key, stored in found.items()})


def _loaded_with(call: Call, args: Args, found: tuple[Any, ...]) -> None:
    if args[0] is not None:
        _loaded(call, args, found[0])
    _loaded_many(call, (args[2],), found[1])


def _claimed(call: Call, args: Args, claim: Claim) -> None:
    _found(call, claim.data)


def _sent(call: Call, args: Args, result: Any) -> None:
    data = args[1]
    call.bytes_sent += len(data) if type(data) is bytes else _size(data)


def _sent_many(call: Call, args: Args, result: Any) -> None:
    call.bytes_sent += sum(map(_size, args[0].values()))


def _removed(call: Call, args: Args, data: Data | None) -> None:
    if data is not None:
        call.bytes_received += _size(data)


def _swapped(call: Call, args: Args, swap: Swap) -> None:
    if args[2] is not None:
        call.bytes_sent += _size(args[2])
    if swap.current is not None:
        call.bytes_received += _size(swap.current.data)


def _swapped_many(call: Call, args: Args, swaps: Iterable[Swap]) -> None:
    for request, swap in zip(args[0], swaps, strict=True):
        _swapped(call, request, swap)


def _ran(call: Call, args: Args, reply: Any) -> None:
    values = reply if isinstance(reply, list) else [reply]
    call.bytes_received += sum(len(value) for value in values if isinstance(value, bytes))


def _ran_many(call: Call, args: Args, replies: list[Any]) -> None:
    for reply in replies:
        _ran(call, args, reply)


def _nothing(call: Call, args: Args, result: Any) -> None:
    """Add nothing: the hook neither reads nor sends data."""


#: The methods of the contract that are observed.
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("get", "set", "add", "delete", "incr", "decr"), Kind(1)),
    **dict.fromkeys(("ttl_of", "expire"), Kind(1)),
    "update": Kind(1, prepare=_with_change_outside),
    **dict.fromkeys(("get_many", "set_many", "delete_many"), Kind(_many, prepare=_listed)),
    **dict.fromkeys(("flush", "ping", "check", "check_nodes", "initialize_schema"), Kind(0)),
    "get_keys": Kind(lambda args, result: len(result), _nothing),
    "raw_get": Kind(1, _got),
    "raw_get_with_ttl": Kind(1, _got_with_ttl),
    "raw_get_many": Kind(_many, _got_many),
    "raw_load": Kind(1, _loaded),
    "raw_load_many": Kind(_many, _loaded_many),
    "raw_load_with": Kind(_one_and_others, _loaded_with),
    "raw_load_timed": Kind(_one_and_others, _loaded_with),
    "raw_claim": Kind(1, _claimed),
    **dict.fromkeys(("raw_set", "raw_add", "raw_set_claimed"), Kind(1, _sent)),
    "raw_set_many": Kind(_many, _sent_many),
    "raw_swap": Kind(1, _swapped),
    "raw_swap_many": Kind(_many, _swapped_many),
    "raw_delete": Kind(1, _removed),
    "raw_delete_many": Kind(_many, _nothing),
    **dict.fromkeys(("raw_incr", "raw_ttl", "raw_expire"), Kind(1, _nothing)),
    **dict.fromkeys(("raw_release", "raw_end_pause"), Kind(1, _nothing)),
    "raw_ttl_many": Kind(_many, _nothing),
    "run_many": Kind(lambda args, result: sum(len(call.keys) for call in args[0]), _ran_many),
    **dict.fromkeys(("run_script", "run_packed"), Kind(lambda args, result: len(args[1]), _ran)),
}

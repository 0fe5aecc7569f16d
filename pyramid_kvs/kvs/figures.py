"""What an observed operation is about: how many keys, hits, misses and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..serializer import Data
from .stored import Claim, Stored, Swap

#: The driver, and the arguments of its method.
Args = tuple[Any, ...]


class Call:
    """An operation that is under way. What makes it sets all attributes, without a call."""

    __slots__ = (
        *("args", "bytes_received", "bytes_sent", "driver", "hits", "is_in_hook", "is_told"),
        *("misses", "round_trips"),
    )

    #: ``None`` when the operation is over.
    driver: Any
    args: Args
    #: Whether a hook runs, whose figures include those of the hooks that it runs.
    is_in_hook: bool
    #: Whether listeners are being told. What they do with stores is not observed.
    is_told: bool
    hits: int
    misses: int
    bytes_sent: int
    bytes_received: int
    round_trips: int


#: The operation that this thread or greenlet runs, or the last one that it ran.
current: ContextVar[Call | None] = ContextVar("pyramid_kvs_operation", default=None)


def is_operation_under_way() -> bool:
    """Return whether this thread or greenlet runs an operation of an observed driver."""
    call = current.get()
    return call is not None and call.driver is not None


def note_round_trip() -> None:
    """Count a round trip of the operation that runs now, if it is observed."""
    call = current.get()
    if call is not None:
        call.round_trips += 1


#: Adds what a hook did to the figures of an operation: its arguments, and what it returned.
Note = Callable[[Call, Args, Any], None]


class Kind(NamedTuple):
    """How a method of the contract is observed."""

    #: How many keys the operation is about, or what returns this from the arguments and the result.
    keys: int | Callable[[Args, Any], int]
    #: Adds what a hook did to the figures of the operation; ``None`` for a method that runs hooks.
    note: Note | None = None
    #: Returns the arguments to call the method with.
    prepare: Callable[[Args], Args] | None = None


# -- arguments ------------------------------------------------------------------------------


def _listed(args: Args) -> Args:
    """Return the arguments with a list of keys: reading them may be another operation."""
    if len(args) < 2 or hasattr(args[1], "__len__"):
        return args
    driver, keys, *others = args
    return (driver, list(keys), *others)


def _with_change_outside(args: Args) -> Args:
    """Return the arguments of ``update``; operations in ``change`` do not belong to it."""
    if len(args) < 3:  # the call is about to raise TypeError
        return args
    driver, key, change, *ttl = args

    def outside(value: Any) -> Any:
        # Not by a mark on the call: a greenlet that the change starts has a copy of the context.
        call = current.get()
        current.set(None)
        try:
            return change(value)
        finally:
            current.set(call)

    return (driver, key, outside, *ttl)


# -- figures ---------------------------------------------------------------------------------


def _many(args: Args, result: Any) -> int:
    return len(args[1])


def _one_and_others(args: Args, result: Any) -> int:
    return (args[1] is not None) + len(args[3])


def _size(data: Data) -> int:
    """Return the bytes of data, which a client may have turned into a number."""
    if type(data) is bytes or (type(data) is str and data.isascii()):
        return len(data)
    if isinstance(data, str):
        return len(data.encode("utf-8", "surrogatepass"))
    return len(data) if isinstance(data, (bytes, bytearray, memoryview)) else len(str(data))


def _found(call: Call, data: Data | None) -> None:
    if data is None:
        call.misses += 1
    else:
        call.hits += 1
        call.bytes_received += _size(data)


def _got(call: Call, args: Args, data: Data | None) -> None:
    if data is None or (len(args) > 2 and data is args[2]):
        call.misses += 1
    else:
        call.hits += 1
        call.bytes_received += len(data) if type(data) is bytes else _size(data)


def _got_many(call: Call, args: Args, found: Mapping[str, Data]) -> None:
    hits = len(found)
    call.hits += hits
    call.misses += len(args[1]) - hits
    call.bytes_received += sum(map(_size, found.values()))


def _got_with_ttl(call: Call, args: Args, found: tuple[Data | None, float]) -> None:
    _found(call, found[0])


def _loaded(call: Call, args: Args, stored: Stored | None) -> None:
    _found(call, None if stored is None else stored.data)


def _loaded_many(call: Call, args: Args, found: Mapping[str, Stored]) -> None:
    _got_many(call, args, {key: stored.data for key, stored in found.items()})


def _loaded_with(call: Call, args: Args, found: tuple[Any, ...]) -> None:
    driver, key, _, others = args
    if key is not None:
        _loaded(call, args, found[0])
    _loaded_many(call, (driver, others), found[1])


def _claimed(call: Call, args: Args, claim: Claim) -> None:
    _found(call, claim.data)


def _sent(call: Call, args: Args, result: Any) -> None:
    data = args[2]
    # What the codec json writes needs no further call.
    call.bytes_sent += len(data) if type(data) is str and data.isascii() else _size(data)


def _sent_many(call: Call, args: Args, result: Any) -> None:
    call.bytes_sent += sum(map(_size, args[1].values()))


def _removed(call: Call, args: Args, data: Data | None) -> None:
    if data is not None:
        call.bytes_received += _size(data)


def _swapped(call: Call, args: Args, swap: Swap) -> None:
    data = args[3]
    if data is not None:
        call.bytes_sent += _size(data)
    if swap.current is not None:
        call.bytes_received += _size(swap.current.data)


def _swapped_many(call: Call, args: Args, swaps: Iterable[Swap]) -> None:
    driver, requests = args
    for request, swap in zip(requests, swaps, strict=True):
        _swapped(call, (driver, *request), swap)


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
    "run_many": Kind(lambda args, result: sum(len(call.keys) for call in args[1]), _ran_many),
    **dict.fromkeys(
        ("run_script", "run_packed", "run_prepared"), Kind(lambda args, result: len(args[2]), _ran)
    ),
}

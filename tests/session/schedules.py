"""Runs two requests through every order of their calls of a driver.

Each request runs in a greenlet. Before each call that reads or writes the store, it gives control
back to the scheduler, which chooses the request that goes on. All choices are tried, depth first,
each time from the beginning.

Two calls that follow each other and do not concern the same key, or both only read it, have the
same effect in either order. Of orders that differ only in this, one is enough (the "sleep sets" of
Godefroid's partial-order reduction): a request that the scheduler has already let go on from a
point is not tried again at a later point, until the other request has made a call that concerns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from greenlet import getcurrent, greenlet

from pyramid_kvs.kvs import KVS

#: The calls of a driver for one key.
READS = ("raw_get", "raw_ttl")
WRITES = ("raw_set", "raw_add", "raw_delete", "raw_expire", "raw_swap", "raw_incr")
#: Those for several keys, which are one step if the driver defines them. Otherwise, they make calls
#: for one key.
MANY = ("raw_get_many", "raw_set_many", "raw_load_many", "raw_load_with", "raw_delete_many")


class Call(NamedTuple):
    """The next call of a request."""

    #: ``None`` means several keys.
    key: str | None
    writes: bool

    def concerns(self, other: Call) -> bool:
        is_same_key = self.key is None or other.key is None or self.key == other.key
        return is_same_key and (self.writes or other.writes)


class Switch:
    """Gives control to the scheduler before each call of a driver that a request makes."""

    def __init__(self) -> None:
        self._inside: set[greenlet] = set()

    def watch(self, driver: KVS) -> None:
        for name in (*READS, *WRITES, "raw_load", *MANY):
            if name not in MANY or getattr(type(driver), name) is not getattr(KVS, name):
                setattr(driver, name, self._wrapped(name, getattr(driver, name)))

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def switching(*args: Any, **kwargs: Any) -> Any:
            current = getcurrent()
            if current.parent is None or current in self._inside:
                return call(*args, **kwargs)
            current.parent.switch(_described(name, *args))
            self._inside.add(current)
            try:
                return call(*args, **kwargs)
            finally:
                self._inside.discard(current)

        return switching


def _described(name: str, key: Any, *args: Any) -> Call:
    # A load that renews a ttl counts as a read: it makes a difference to markers only, whose own
    # compare-and-set follows.
    return Call(
        key if isinstance(key, str) else None,
        name in WRITES or "set_m" in name or "delete_m" in name,
    )


@dataclass
class Point:
    """A point of a run at which the scheduler chose a request."""

    chosen: int
    #: The next call of each request that is not done.
    calls: dict[int, Call]
    #: Requests that need not be chosen here.
    asleep: set[int]

    def next_choice(self) -> int | None:
        """Return the next request to choose at this point, after the one that was chosen."""
        self.asleep.add(self.chosen)
        return next((number for number in self.calls if number not in self.asleep), None)


def every_order(make: Callable[[], list[Callable[[], None]]]) -> Iterator[list[int]]:
    """Run some functions again and again, in every order of their calls; yield each order.

    :param make: prepares a run; returns the functions.
    """
    points: list[Point] = []
    while True:
        is_complete = _run([greenlet(function) for function in make()], points)
        if is_complete:
            yield [point.chosen for point in points]
        while points:
            choice = points[-1].next_choice()
            if choice is not None:
                points[-1].chosen = choice
                break
            points.pop()
        else:
            return


def _run(requests: list[greenlet], points: list[Point]) -> bool:
    """Run greenlets to their end; return whether no equivalent order was tried before.

    :param points: the first choices. Others are added.
    """
    # The first switch leads up to a request's first call, which no other request can notice.
    calls = {number: request.switch() for number, request in enumerate(requests)}
    calls = {number: call for number, call in calls.items() if not requests[number].dead}
    done = 0
    while calls:
        if done == len(points):
            asleep = _asleep(points)
            awake = calls.keys() - asleep
            if not awake:
                _stop(requests)
                return False
            points.append(Point(min(awake), calls, asleep))
        chosen = points[done].chosen
        call = requests[chosen].switch()
        calls = {number: other for number, other in calls.items() if number != chosen}
        if not requests[chosen].dead:
            calls[chosen] = call
        done += 1
    return True


def _stop(requests: list[greenlet]) -> None:
    for request in requests:
        request.throw()


def _asleep(points: list[Point]) -> set[int]:
    """Return the requests that sleep at the point after these."""
    if not points:
        return set()
    last = points[-1]
    made = last.calls[last.chosen]
    return {number for number in last.asleep if not made.concerns(last.calls[number])}

"""A request that uses ``request.perlsess`` takes time in proportion to the size of the session."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from pyramid_kvs.exceptions import CodecError
from pyramid_kvs.perlsess.formats import FORMATS, unwrap
from tests.perlsess.sites import Site
from tests.storable.growth import BOUND, growth
from tests.storable.hostile import Image
from tests.storable.images import BIG, NETWORK, UNDEF, byte, ref, same, u32
from tests.storable.test_linear_time import (
    linked_lists,
    long_class,
    many_members,
    pairs,
    shared_list,
)

SIZE = 50_000
#: Strings are compared and converted so fast that it only shows in large sessions.
LARGE = 500_000


def long_string_in_a_list(size: int) -> bytes:
    """A list that contains one long string many times."""
    string = BIG.long_text(b"x" * (size // 2))
    strings = BIG.array(string, *[ref(same(3))] * (size // 12))
    return NETWORK + BIG.hash(first=ref(strings), other=ref(BIG.array()))


def long_list_in_many(size: int) -> bytes:
    """A hash of many lists, each of which contains the long list of the key ``first``."""
    first = ref(BIG.array(*[UNDEF] * (size // 2)))
    return NETWORK + pairs(first, ref(BIG.array(ref(same(2)))), size // 2)


def long_lifetime(size: int) -> bytes:
    """A session of CGI::Session, in which many keys have one long number as their lifetime."""
    number = BIG.long_text(b"1".zfill(size // 2))
    listed = BIG.array(number)
    pairs = (ref(same(4)) + BIG.key(b"%08x" % place) for place in range(size // 36))
    lifetimes = b"\x03" + u32(size // 36) + b"".join(pairs)
    return NETWORK + BIG.hash(
        _SESSION_ATIME=byte(1), number=ref(listed), _SESSION_EXPIRE_LIST=ref(lifetimes)
    )


def read(session: Any) -> None:
    len(session)


def add(session: Any) -> None:
    session["new"] = 1


def append(session: Any) -> None:
    session["first"].append(1)


def append_to_one(session: Any) -> None:
    """Change one list in place, so that all others have to be compared."""
    session["00000000"].append(1)


def append_to_other(session: Any) -> None:
    session["other"].append(1)


SESSIONS: dict[str, tuple[Image, Callable[[Any], None], int]] = {
    "read objects of a class with a long name": (long_class, read, SIZE),
    "add a key beside objects": (long_class, add, SIZE),
    "change a list that all keys share": (shared_list, append, SIZE),
    "change a list that all lists contain": (linked_lists, append, SIZE),
    "change one of many lists that contain a long list": (long_list_in_many, append_to_one, SIZE),
    "add a key to an object of Cache::FileCache": (many_members, add, SIZE),
    "change a list beside one with a string many times": (
        long_string_in_a_list,
        append_to_other,
        LARGE,
    ),
    "read keys that share a long lifetime": (long_lifetime, read, LARGE),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_requests(name: str) -> None:
    """A session of four times the size takes about four times as long."""
    make, change, size = SESSIONS[name]
    site = Site({"kvs": "memory", "writable": True})

    def request(image: bytes) -> None:
        site.driver.raw_set("abc", image, None)
        site.get(lambda request: change(request.perlsess), "abc")

    assert growth(make, request, size) < BOUND


WRAPPED = {
    "newlines": lambda size: b"A" + b"\n" * size + b"!",
    "base64 with an error at the end": lambda size: base64.encodebytes(b"x" * size) + b"!",
    "padding": lambda size: b"A" * size + b"=" * size,
    "hexadecimal with an error at the end": lambda size: b"0a" * size + b"!",
    "empty lines": lambda size: b"\n" * size,
    "uuencoded lines with an error at the end": lambda size: b"!0\n" * size + b"\xff",
}


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("name", WRAPPED)
def test_formats(name: str, format_name: str) -> None:
    """Data of four times the size take about four times as long to be recognized or refused."""

    def try_unwrap(data: bytes) -> None:
        with contextlib.suppress(CodecError):
            unwrap(data, 0, format_name)

    assert growth(WRAPPED[name], try_unwrap, 20_000) < BOUND

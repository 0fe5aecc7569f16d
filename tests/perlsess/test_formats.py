"""The layers of Perl's modules around an image are recognized, removed and added again."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import random
import struct
import time
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyramid_kvs.exceptions import CodecError
from pyramid_kvs.kvs import Stored
from pyramid_kvs.perlsess.formats import FORMATS, MAX_BYTES, unwrap, wrap
from pyramid_kvs.perlsess.records import StorableRecords
from pyramid_kvs.storable import freeze, nfreeze
from tests.servers import need_perl
from tests.storable.perl import perl_image, run_perl

NETWORK = nfreeze({"user": "ann", "list": [1, 2, {"deep": None}], "text": "é" * 50})
NATIVE = freeze({"user": "ann", "list": [1, 2, {"deep": None}], "text": "é" * 50})
FILE = b"pst0" + NETWORK
CREATED = 1_800_000_000


def chi(data: bytes, bits: int = 1, expires: int = 0xFFFFFFFF) -> bytes:
    return struct.pack("=IIIBB", min(CREATED, expires), expires, expires, bits, 1) + data


def uuencode(data: bytes) -> bytes:
    lines = (data[start : start + 45] for start in range(0, len(data), 45))
    return b"".join(binascii.b2a_uu(line, backtick=True) for line in lines)


def wrappings(image: bytes) -> dict[str, tuple[bytes, int, str]]:
    """Return data, flags and format by name."""
    packed = gzip.compress(image, mtime=0)
    return {
        "plain": (image, 0, "plain"),
        "memcached": (image, 1, "plain"),
        "memcached gzip": (packed, 3, "plain"),
        "memcached string gzip": (packed, 2, "plain"),
        "memcached utf8": (image, 4, "plain"),
        "memcached base64 gzip": (gzip.compress(base64.encodebytes(image)), 2, "base64"),
        "gzip": (packed, 0, "gzip"),
        "base64": (base64.encodebytes(image), 0, "base64"),
        "base64 in one line": (base64.b64encode(image), 0, "base64"),
        "base64 without its last newline": (base64.encodebytes(image)[:-1], 0, "base64"),
        "hex": (image.hex().encode(), 0, "hex"),
        "uuencode": (uuencode(image), 0, "uuencode"),
        "chi": (chi(image), 0, "chi"),
        "chi gzip": (chi(packed, 5), 0, "chi"),
    }


@pytest.mark.parametrize("image", [NETWORK, NATIVE, FILE], ids=["network", "native", "file"])
@pytest.mark.parametrize("name", wrappings(b""))
def test_every_wrapping(name: str, image: bytes) -> None:
    """It is removed, with its name and with "auto", and wrapping again gives the same data."""
    data, flags, format_name = wrappings(image)[name]
    for chosen in ("auto", format_name):
        found, wrapping = unwrap(data, flags, chosen)
        assert found == image
        wrapped, flags_again = wrap(found, wrapping)
        assert flags_again == flags
        if b"\x1f\x8b" not in data:
            assert wrapped == data
        assert unwrap(wrapped, flags, chosen).image == image


def test_what_perl_writes() -> None:
    """Perl's own base64, uuencode and hexadecimal are removed and written again."""
    perl = need_perl()
    image = "my $image = nfreeze({user => 'ann', notes => join ' ', 1 .. 300});"
    script = f"use Storable 'nfreeze'; use MIME::Base64; binmode STDOUT; {image} print "
    for name, packing in (
        ("base64", "encode_base64($image)"),
        ("base64", "encode_base64($image, '')"),
        ("uuencode", "pack 'u', $image"),
        ("hex", "unpack 'H*', $image"),
    ):
        data = run_perl(perl, "-e", script + packing)
        for chosen in ("auto", name):
            found, wrapping = unwrap(data, 0, chosen)
            assert found.startswith(b"\x05\x0b\x03")
            assert wrap(found, wrapping) == (data, 0)


def test_a_named_format_that_does_not_match() -> None:
    for name in ("gzip", "base64", "hex", "uuencode", "chi"):
        with pytest.raises(CodecError, match="stored session"):
            unwrap(NETWORK, 0, name)
    with pytest.raises(CodecError, match="gzip"):
        unwrap(NETWORK, 2)


def test_unknown_data_are_not_changed() -> None:
    """If the decoded data are not an image, the data are not encoded, and have no prefix."""
    for data in (
        b"",
        b"plain text",
        base64.b64encode(b"no image"),
        b"no image".hex().encode(),
        uuencode(b"no image"),
        chi(b"no image"),
        chi(b"text", bits=0),
        b'{"user": "ann"}',
    ):
        assert unwrap(data, 0).image == data


def test_gzip_in_gzip_is_not_followed() -> None:
    inner = gzip.compress(NETWORK)
    assert unwrap(gzip.compress(inner), 2).image == inner


def test_a_string_in_a_session_is_not_taken_for_a_prefix() -> None:
    """A user's string cannot turn an image into an entry of CHI that contains another image."""
    forged = nfreeze({"user": "admin"})
    hostile = nfreeze({"name": b"\xff\xff\xff\x01\x01" + forged})
    assert unwrap(hostile, 0, "chi").image.startswith(forged)
    assert unwrap(hostile, 0).image == hostile


def test_a_decompression_bomb() -> None:
    """A hundred megabytes of zeros in a hundred kilobytes are refused before they are in memory."""
    bomb = gzip.compress(b"\0" * 100 * 1024 * 1024)
    tracemalloc.start()
    for data, flags, name in ((bomb, 3, "auto"), (bomb, 0, "auto"), (chi(bomb, 5), 0, "chi")):
        with pytest.raises(CodecError, match=f"more than {MAX_BYTES} bytes"):
            unwrap(data, flags, name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_BYTES


def test_too_large_without_compression() -> None:
    with pytest.raises(CodecError, match="larger than 100 bytes"):
        unwrap(base64.encodebytes(NETWORK), 0, "auto", max_bytes=100)


@pytest.mark.parametrize("end", [-1, -8, -20, 11, 2])
def test_truncated_gzip(end: int) -> None:
    data = gzip.compress(NETWORK)[:end]
    for flags in (0, 2, 3):
        with pytest.raises(CodecError, match="gzip"):
            unwrap(data, flags)


def test_data_after_gzip() -> None:
    with pytest.raises(CodecError, match="followed by"):
        unwrap(gzip.compress(NETWORK) + b"more", 2)


def test_expiry_of_chi() -> None:
    _, wrapping = unwrap(chi(NETWORK, expires=CREATED + 60), 0)
    assert wrapping.expires == CREATED + 60
    assert unwrap(chi(NETWORK), 0).wrapping.expires is None
    renewed = wrapping.renewed(CREATED + 10, 300)
    assert renewed.expires == CREATED + 310
    assert wrapping.renewed(CREATED, None).expires is None
    data, flags = wrap(NETWORK, renewed)
    assert (unwrap(data, flags).wrapping, flags) == (renewed, 0)


RECORDS = {name: StorableRecords("utf-8", name, MAX_BYTES, "characters") for name in FORMATS}
SAMPLES = [
    (data, flags)
    for image in (NETWORK, NATIVE, FILE)
    for data, flags, _ in wrappings(image).values()
]


@settings(max_examples=3000, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    flags=st.integers(0, 31),
    name=st.sampled_from(sorted(FORMATS)),
    data=st.one_of(st.none(), st.binary(max_size=80)),
)
@example(seed=0, flags=0, name="auto", data=b"\x05\x0b")
@example(seed=0, flags=0, name="auto", data=b"\x05")
@example(seed=0, flags=0, name="auto", data=b"perl-store\x01")
@example(seed=0, flags=0, name="uuencode", data=b"\xff\xff")
def test_hostile_data(seed: int, flags: int, name: str, data: bytes | None) -> None:
    """Any data are read as a session, or raise CodecError."""
    chance = random.Random(seed)
    if data is None:
        changed = bytearray(chance.choice(SAMPLES)[0])
        for _ in range(chance.randint(1, 5)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        data = bytes(changed[: chance.choice([len(changed), chance.randrange(len(changed))])])
    with contextlib.suppress(CodecError):
        record = RECORDS[name].read(Stored(data, None, flags))
        record.is_expired(time.time())
        record.expired_keys(time.time())


def test_image_of_a_file() -> None:
    """Images with ``pst0``, which Plack's file store writes, keep it."""
    image = perl_image(need_perl(), "{user => 'ann'}")
    found, wrapping = unwrap(b"pst0" + image, 0)
    assert wrap(found, wrapping)[0] == b"pst0" + image

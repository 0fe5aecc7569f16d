"""Real perl reads the written images, and the images that perl writes again are equal."""

from __future__ import annotations

import collections
import enum
import math
import os
import stat
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_kvs.storable import StorableError, freeze, nfreeze, nstore, retrieve, store, thaw
from tests.storable.compare import differ
from tests.storable.conftest import Oracle

both = pytest.mark.parametrize("write", [freeze, nfreeze])

LARGEST = sys.float_info.max
TEXT = st.text(max_size=30) | st.text("aé☺😀\0", min_size=80, max_size=400)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.integers(-300, 300),
    st.floats(),
    TEXT,
    st.binary(max_size=30),
)
KEYS = TEXT | st.binary(max_size=10).filter(lambda key: not is_text(key))


def is_text(raw: bytes) -> bool:
    """Tell if bytes could be the same key as a string."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def distinct(value: dict[Any, Any]) -> bool:
    """Tell if no two keys are equal in Perl."""
    texts = {key for key in value if isinstance(key, str)}
    return not any(key.decode("latin-1") in texts for key in value if isinstance(key, bytes))


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=6).filter(distinct),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: [items, items, {"a": items}]),
    ),
    max_leaves=20,
)


@settings(max_examples=250, deadline=None)
@given(value=VALUES)
def test_perl_thaws_it(oracle: Oracle, value: Any) -> None:
    for image in (freeze(value), nfreeze(value)):
        assert differ(value, oracle.describe(image), by_perl=True) is None


@settings(max_examples=120, deadline=None)
@given(value=VALUES)
def test_perl_freezes_it_again(oracle: Oracle, value: Any) -> None:
    for order in (b"f", b"n"):
        again = thaw(oracle.freeze_again(freeze(value), order))
        if order == b"n":
            again = restore_floats(again, value, {})
        assert differ(value, again, by_perl=True) is None


def restore_floats(again: Any, value: Any, done: dict[int, Any]) -> Any:
    """Replace floats that perl rounded to 15 digits by the original ones, if they are close."""
    if isinstance(value, float) and math.isfinite(value) and float(again) != value:
        found = max(-LARGEST, min(LARGEST, float(again)))
        assert math.isclose(found, value, rel_tol=1e-14, abs_tol=5e-324)
        return value
    if not isinstance(value, (list, tuple, dict)) or id(again) in done:
        return again
    done[id(again)] = again
    if isinstance(value, dict):
        for key, item in value.items():
            found = next(name for name in again if name == key or as_raw(name) == as_raw(key))
            again[found] = restore_floats(again[found], item, done)
    else:
        again[:] = [restore_floats(a, v, done) for a, v in zip(again, value, strict=True)]
    return again


def as_raw(key: Any) -> Any:
    return key.encode() if isinstance(key, str) else key


@settings(max_examples=120, deadline=None)
@given(value=VALUES)
def test_thaw_reads_it(value: Any) -> None:
    """The reader reads both forms."""
    assert differ(value, thaw(freeze(value)), by_perl=True) is None
    assert differ(value, thaw(nfreeze(value)), by_perl=True) is None


@both
def test_cycles(write: Any, oracle: Oracle) -> None:
    cycle: dict[str, Any] = {"list": [1, 2]}
    cycle["self"] = cycle
    cycle["list"] += [cycle["list"], cycle, ({"up": cycle},)]
    assert differ(cycle, oracle.describe(write(cycle)), by_perl=True) is None
    assert differ(cycle, thaw(oracle.freeze_again(write(cycle), b"n")), by_perl=True) is None


@both
def test_keys_of_all_kinds_in_one_hash(write: Any, oracle: Oracle) -> None:
    """Only strings that are not ASCII have a flag."""
    value = {"é": 1, b"\xff": 2, "ascii": 3, "": 4, "☺": 5}
    assert differ(value, oracle.describe(write(value))) is None
    assert write({"é": b"", b"\xff": b""})[-6] == 0


@both
@pytest.mark.parametrize(
    "value",
    [
        "text",
        "é",
        b"\xff",
        None,
        True,
        0,
        -140,
        2**63,
        1.5,
        [],
        {},
        (),
        ["x" * 70000],
        {"é" * 300: 1},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_roots(write: Any, oracle: Oracle, value: Any) -> None:
    assert differ(value, oracle.describe(write(value)), by_perl=True) is None


def test_exact_types_of_the_native_form() -> None:
    value = [
        1,
        -140,
        2**31,
        -(2**63),
        1.0,
        -0.0,
        5e-324,
        math.inf,
        -math.inf,
        "é",
        b"\xff",
        None,
        [],
        {},
    ]
    assert differ(value, thaw(freeze(value))) is None
    assert differ([1, 0, str(2**63)], thaw(freeze([True, False, 2**63]))) is None


def test_exact_types_of_the_network_form() -> None:
    value = [1, -140, 2**31 - 1, -(2**31), 2**31, 0.1, 3.0, math.inf, -math.inf, math.nan]
    want = [1, -140, 2**31 - 1, -(2**31), "2147483648", "0.1", "3.0", "Inf", "-Inf", "NaN"]
    assert differ(want, thaw(nfreeze(value))) is None


def test_known_bytes() -> None:
    """Perl writes the same images for these values."""
    assert (
        nfreeze({"k": [1, "a"]}).hex()
        == "050b0300000001040200000002" + "0881" + "0a0161" + "000000016b"
    )
    assert (
        freeze([-140]).hex()
        == "040b08" + b"12345678".hex() + "04080808" + "020100000006" + "74ffffffffffffff"
    )
    assert nfreeze({"☺": 1}).hex() == "050b190000000001" + "0881" + "0100000003" + "e298ba"


class Colour(enum.IntEnum):
    RED = 3


class Name(str, enum.Enum):
    ANNA = "anna"


class Pair(NamedTuple):
    left: int
    right: str


@both
def test_subclasses(write: Any) -> None:
    value = {
        Name.ANNA: Colour.RED,
        "pair": Pair(1, "r"),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, b=[]),
        "array": bytearray(b"\xff"),
    }
    want = {
        "anna": 3,
        "pair": [1, "r"],
        "ordered": {"a": 1},
        "default": {"b": []},
        "array": b"\xff",
    }
    assert differ(want, thaw(write(value))) is None


@both
def test_empty_tuples_are_not_shared(write: Any) -> None:
    first, second = thaw(write([(), ()]))
    assert first is not second


@both
def test_huge_ints(write: Any, oracle: Oracle) -> None:
    """Integers may have more digits than ``str(int)`` allows."""
    digits = "1" + "0" * 9999
    assert oracle.describe(write([10**9999, -(10**9999)])) == [digits, "-" + digits]


REFUSED = [
    ({1: 2}, "value: Perl cannot represent a key of type int"),
    (
        {"user": [{"when": {1}}]},
        r"value\['user'\]\[0\]\['when'\]: Perl cannot represent a value of type set",
    ),
    ([object()], r"value\[0\]: Perl cannot represent a value of type object"),
    ([Path("x")], r"value\[0\]: Perl cannot represent a value of type pathlib\.\w+"),
    ([1j], r"value\[0\]: Perl cannot represent a value of type complex"),
    ({("a",): 1}, "value: Perl cannot represent a key of type tuple"),
    ({None: 1}, "value: Perl cannot represent a key of type NoneType"),
    ({"a": 1, b"a": 2}, "value: a bytes key and a str key are the same key in Perl"),
    ({"é": 1, b"\xe9": 2}, "value: a bytes key and a str key are the same"),
    (["\ud800"], r"value\[0\]: a string with a lone surrogate"),
    ({"\udfff": 1}, "value: a string with a lone surrogate"),
]


@both
@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[m[:40] for _, m in REFUSED])
def test_refused(write: Any, value: Any, message: str) -> None:
    """The message contains the type and the place, but no value."""
    with pytest.raises(StorableError, match=message) as error:
        write(value)
    assert error.value.offset is None


def nest(depth: int, kind: str) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value] if kind == "list" else {"k": value}
    return value


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_depth_that_perl_reads(kind: str, oracle: Oracle) -> None:
    """The deepest value that is allowed does not crash perl, and a deeper one is refused."""
    limit = sys.getrecursionlimit()
    image = nfreeze(nest(12_000, kind))
    assert differ(nest(12_000, kind), thaw(oracle.freeze_again(image, b"n"))) is None
    with pytest.raises(StorableError, match=r"^value\[\.\.\.\].* more than 12000 levels"):
        nfreeze(nest(12_001, kind))
    assert sys.getrecursionlimit() == limit


def test_shared_values_are_written_once() -> None:
    """60 lists that each contain the next one twice are written once each."""
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    assert len(nfreeze(value)) < 2000


@pytest.mark.parametrize("write", [store, nstore])
def test_files(write: Any, tmp_path: Path, oracle: Oracle) -> None:
    path = tmp_path / "session"
    write({"a": [1, "é"]}, path)
    assert path.read_bytes()[:4] == b"pst0"
    assert retrieve(path) == oracle.describe(path.read_bytes()) == {"a": [1, "é"]}
    write([2], str(path))
    assert retrieve(str(path)) == [2]
    assert os.listdir(tmp_path) == ["session"]


def test_a_file_is_unchanged_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "session"
    nstore([1], path)
    with pytest.raises(StorableError):
        nstore([object()], path)
    assert retrieve(path) == [1]
    with pytest.raises(IsADirectoryError):
        nstore([1], tmp_path)
    assert os.listdir(tmp_path) == ["session"]


def test_file_modes(tmp_path: Path) -> None:
    """A new file gets its mode from the umask. An existing file keeps it. Links are followed."""
    path, link = tmp_path / "session", tmp_path / "link"
    umask = os.umask(0o027)
    try:
        nstore([1], path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link.symlink_to(path)
    nstore([2], link)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert link.is_symlink()
    assert retrieve(path) == [2]


def test_long_text_uses_four_bytes() -> None:
    assert nfreeze("x" * 256)[2:7] == b"\x01" + struct.pack(">I", 256)
    assert nfreeze("é" * 128)[2:7] == b"\x18" + struct.pack(">I", 256)
    assert nfreeze("é" * 127)[2:4] == b"\x17\xfe"

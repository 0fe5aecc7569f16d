"""Changes to the hash in an image, as real perl reads them."""

from __future__ import annotations

import base64
import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_kvs.perlsess.comparison import changed_keys
from pyramid_kvs.storable import StorableError, freeze, nfreeze, thaw
from pyramid_kvs.storable.editor import REMOVED, Changes, edit_hash, read_hash
from tests.servers import need_perl
from tests.storable.perl import perl_dump, perl_image

GRAPHS = Path(__file__).with_name("graphs.pl")


class Worker:
    """A perl process that creates random sessions and describes sessions that it thaws."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [need_perl(), str(GRAPHS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _ask(self, line: str) -> bytes:
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return base64.b64decode(self._process.stdout.readline())

    def make(self, seed: int, function: str) -> bytes:
        return self._ask(f"make {seed} {function}")

    def dump(self, image: bytes, without: set[str]) -> str:
        encoded = base64.b64encode(image).decode()
        return self._ask(f"dump {encoded} {','.join(sorted(without))}").decode()

    def close(self) -> None:
        self._process.stdin.close()
        assert self._process.wait(30) == 0


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def edit(
    image: bytes,
    values: dict[Any, Any],
    mutated: set[Any] = frozenset(),
    current: dict[Any, Any] | None = None,
) -> bytes:
    objects: dict[int, Any] = {}
    if current is None:
        current = thaw(image, blessed=lambda _, value: objects.setdefault(id(value), value))
    return edit_hash(read_hash(image, "utf-8"), Changes(values, set(mutated), objects), current)


ADDED = [1, {"deep": [None, "é", "text" * 100, -70000]}]


def random_changes(chance: random.Random, keys: list[Any]) -> dict[Any, Any]:
    gone = chance.sample(keys, chance.randrange(3))
    added = chance.choice([[], ["new"], ["new", "ß"], ["\u263a"]])
    return {**dict.fromkeys(gone, REMOVED), **dict.fromkeys(added, ADDED)}


@pytest.mark.parametrize("function", ["freeze", "nfreeze"])
def test_other_keys_are_not_changed(worker: Worker, function: str) -> None:
    """Whatever is removed and added, the other keys keep their classes, links and bytes."""
    refused = 0
    for seed in range(250):
        image = worker.make(seed, function)
        keys = sorted(thaw(image))
        changes = random_changes(random.Random(seed), keys)
        gone = {key for key, value in changes.items() if value is REMOVED}
        added = set(changes) - gone
        try:
            edited = edit(image, changes)
        except StorableError:
            assert gone, "additions are never refused"
            refused += 1
            continue
        assert worker.dump(edited, set(changes)) == worker.dump(image, set(changes))
        found = thaw(edited)
        assert found.keys() == (set(keys) | added) - gone
        assert changed_keys(dict.fromkeys(added, ADDED), found) == set()
    assert 0 < refused < 50


def test_no_change_gives_the_same_bytes(worker: Worker) -> None:
    for seed in range(100):
        image = worker.make(seed, "nfreeze")
        assert edit(image, {}) == image


def test_shared_data_that_change_remain_shared(worker: Worker) -> None:
    """If a list changes that two keys share, both keys still share it."""
    image = perl_image(need_perl(), "do { my $l = [1]; {a => $l, b => {l => $l}, c => [2]} }")
    values = thaw(image)
    values["a"].append(5)
    edited = edit(image, {"a": values["a"], "b": values["b"]}, {"a", "b"})
    found = thaw(edited)
    assert found == {"a": [1, 5], "b": {"l": [1, 5]}, "c": [2]}
    assert found["a"] is found["b"]["l"]


def test_a_change_beside_shared_data() -> None:
    """If a hash changes that contains another key's list, it still shares the list."""
    image = perl_image(need_perl(), "do { my $l = [1]; {a => $l, b => {l => $l}} }")
    values = thaw(image)
    values["b"]["new"] = 1
    found = thaw(edit(image, {"b": values["b"]}, {"b"}, values))
    assert found == {"a": [1], "b": {"l": [1], "new": 1}}
    assert found["a"] is found["b"]["l"]


def test_data_of_a_removed_key_stay_at_other_places() -> None:
    image = perl_image(need_perl(), "do { my $l = [1]; {a => $l, b => {l => $l}} }")
    for gone, kept in (("a", {"b": {"l": [1]}}), ("b", {"a": [1]})):
        assert thaw(edit(image, {gone: REMOVED})) == kept


LOCKED = r"do { require Hash::Util; my %h = (a => 1); Hash::Util::lock_hashref(\%h); [\%h] }"


@pytest.mark.parametrize(
    ("value", "obstacle"),
    [
        ("bless({n => 1}, 'My::User')", "an object of class My::User"),
        ("{deep => [bless([], 'My::User')]}", "an object of class My::User"),
        ("[qr/x/]", "an object of class Regexp"),
        (r"[\'text']", "a reference to a scalar"),
        (r"[\[1]]", "a reference to a reference"),
        (r"do { my $n = 1; [\$n, \$n] }", "a reference to a scalar"),
        ("[v1.2.3]", "a version string"),
        (LOCKED, "a restricted hash"),
        ("do { package Ov; use overload '+' => sub {}; [bless []] }", "an overloaded object"),
        ("do { package Hk; sub STORABLE_freeze { 'x' } bless [] }", "an object of a class with"),
        (
            "do { require Scalar::Util; my $s = [[1]]; push @$s, $s->[0];"
            " Scalar::Util::weaken($s->[1]); $s }",
            "a weak reference",
        ),
    ],
)
def test_changes_to_data_that_python_cannot_represent(value: str, obstacle: str) -> None:
    image = perl_image(need_perl(), f"{{key => {value}, other => 1}}")
    current = thaw(image)
    with pytest.raises(StorableError, match=f"'key' changed, and it contains {obstacle}"):
        edit(image, {"key": current["key"]}, {"key"})
    assert thaw(edit(image, {"key": [1]})) == {"key": [1], "other": 1}
    assert thaw(edit(image, {"key": REMOVED})) == {"other": 1}


def test_objects_under_another_key_are_refused() -> None:
    """A dict that was an object of a class would be stored without the class."""
    image = perl_image(need_perl(), "{user => bless({n => 1}, 'My::User')}")
    objects: dict[int, Any] = {}
    current = thaw(image, blessed=lambda _, value: objects.setdefault(id(value), value))
    changes = Changes({"list": [current["user"]]}, set(), objects)
    with pytest.raises(StorableError, match="'list' changed, and it contains an object"):
        edit_hash(read_hash(image, "utf-8"), changes, current)


def test_a_changed_cycle_through_the_session_is_refused() -> None:
    image = perl_image(need_perl(), "do { my $s = {n => 1}; $s->{self} = [$s]; $s }")
    with pytest.raises(StorableError, match="a reference to the session itself"):
        edit(image, {"self": thaw(image)["self"]}, {"self"})
    found = thaw(edit(image, {"n": 2}))
    assert found["n"] == 2
    assert found["self"][0] is found


def test_keys_keep_their_bytes() -> None:
    """A key whose value changed is written as perl wrote it, as bytes or characters."""
    perl = need_perl()
    image = perl_image(perl, r'{"\xc3\xa9" => 1, "\x{e9}x\x{263a}" => 1, "l\x{e9}" => 1}')
    edited = edit(image, dict.fromkeys(thaw(image), 2))
    assert perl_dump(perl, edited) == perl_dump(perl, image).replace("=> 1", "=> 2")


def test_a_bytes_key_and_an_equal_str_key() -> None:
    """With ``encoding`` null, Perl's keys are bytes. An equal str key is the same key in Perl."""
    perl = need_perl()
    image = nfreeze({b"user": 1})
    changes = Changes({"user": 2})
    edited = edit_hash(read_hash(image, None), changes, {b"user": 1})
    assert perl_dump(perl, edited) == '{"user" => 2}'


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("bless {a => 1}, 'My::Session'", """bless( {"a" => 2}, 'My::Session' )"""),
        (r"\{a => 1}", r"""\{"a" => 2}"""),
    ],
)
def test_data_around_the_hash_are_not_changed(expression: str, expected: str) -> None:
    perl = need_perl()
    assert perl_dump(perl, edit(perl_image(perl, expression), {"a": 2})) == expected


def test_the_member_of_an_object() -> None:
    """The hash in a Cache::Object is changed, and the data around it are not."""
    perl = need_perl()
    fields = "A => undef, _Data => $s, odd => bless([$s], 'Odd')"
    session = "{n => 1, o => bless([], 'Odd')}"
    image = perl_image(perl, f"do {{ my $s = {session}; ['k', bless({{{fields}}}, 'C'), 7] }}")
    current = thaw(image)[1]["_Data"]
    edited = edit_hash(read_hash(image, "utf-8", b"_Data"), Changes({"n": 2, "m": [3]}), current)
    before, after = perl_dump(perl, image), perl_dump(perl, edited)
    assert after.replace('"m" => [3],"n" => 2', '"n" => 1') == before != after


def test_a_member_that_is_only_referred_to() -> None:
    image = perl_image(
        need_perl(), "do { my $s = {}; ['k', bless({A => [$s], _Data => $s}, 'C')] }"
    )
    with pytest.raises(StorableError, match="expected a hash"):
        read_hash(image, "utf-8", b"_Data")


def test_foreign_layouts_are_not_changed() -> None:
    """A native image of a big-endian perl can be read, but not changed."""
    image = b"\x04\x0b\x0887654321\x04\x08\x08\x08\x03\0\0\0\x01\x08\x81\0\0\0\x01a"
    assert thaw(image) == {"a": 1}
    with pytest.raises(StorableError, match="not on a 64-bit PC"):
        edit(image, {"b": 2})


def test_no_hash_at_the_root() -> None:
    for image in (nfreeze([1]), freeze("text")):
        with pytest.raises(StorableError, match="expected a hash, found"):
            read_hash(image, "utf-8")


def test_encoded_empty_tuples_are_not_shared() -> None:
    """Python has only one empty tuple, but two places that contain it do not share data."""
    changes = Changes({"pair": [(), ()]}, text_codec="utf-8")
    first, second = thaw(edit_hash(read_hash(nfreeze({}), "utf-8"), changes, {}))["pair"]
    assert first is not second


@settings(max_examples=1500, deadline=None)
@given(data=st.data())
def test_damaged_images(data: st.DataObject) -> None:
    """A change of any bytes gives an image, or raises StorableError."""
    image = bytearray(BROKEN_FROM[data.draw(st.integers(0, len(BROKEN_FROM) - 1))])
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    image = image[: data.draw(st.integers(0, len(image)))]
    member = data.draw(st.sampled_from([None, b"_Data"]))
    with contextlib.suppress(StorableError):
        found = read_hash(bytes(image), "utf-8", member)
        edit_hash(found, Changes({"a": 1, "b": REMOVED}), {pair.key: None for pair in found.pairs})


_MEMBER = "050b 02 00000002 0881 04 110143 03 00000001 04 03 00000001 0881 00000001 61 00000005"
BROKEN_FROM = [
    nfreeze({"a": [1, {"b": "text" * 80}], "b": None, "ß": -5}),
    freeze({"a": [1, {"b": "text" * 80}], "b": 70000, "ß": 2.5}),
    bytes.fromhex(_MEMBER) + b"_Data",
    # [7, $s, $s, $h] in a hash, where $h is an object of a class with hooks
    bytes.fromhex(
        "050b 03 00000001 04 02 00000004 0887 04 02 00000001 0a017a 04 00 00000005"
        "04 13 42 02 00000001 0885 82 024878 02636b 01 0000000a 00000001 61"
    ),
]

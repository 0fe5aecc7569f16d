"""The suite for authors of drivers, as an author runs it: with pytest, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from pyramid_kvs.testing.conformance import DriverConformance
from tests.testing.environments import run

DRIVER = """
import threading, time
from pyramid_kvs.kvs import KVS, decode_key, key_pattern
from pyramid_kvs.testing.conformance import DriverConformance

DATA = {}


class SmallKVS(KVS):
    "A dictionary: full key -> data and deadline."

    is_shared = False

    def raw_get(self, key, default=None):
        data, deadline = DATA.get(self._get_key(key), (default, float("inf")))
        return data if time.monotonic() < deadline else default

    def raw_set(self, key, value, ttl):
        deadline = float("inf") if ttl is None else time.monotonic() + ttl
        DATA[self._get_key(key)] = (value, deadline)

    def _remove(self, key):
        DATA.pop(self._get_key(key), None)

    def raw_ttl(self, key):
        left = DATA.get(self._get_key(key), (None, 0))[1] - time.monotonic()
        return left if 0 < left < float("inf") else -1.0

    def get_keys(self, pattern="*"):
        start, matches = len(self.key_prefix), key_pattern(pattern).fullmatch
        keys = [decode_key(key[start:]) for key in list(DATA) if key.startswith(self.key_prefix)]
        return [key for key in keys if matches(key) and self.raw_get(key) is not None]
"""

SUITE = """

class TestDriver(DriverConformance):
    shared = False

    def make(self, key_prefix, **options):
        return SmallKVS("small", {}, key_prefix, **options)
"""

#: A driver as 1.0's documentation shows it: three hooks, and a client that cannot delete.
OF_1_0 = """
import time
from pyramid_kvs.kvs import KVS
from pyramid_kvs.testing.conformance import DriverConformance


class OldKVS(KVS):
    def _create_client(self, **kwargs):
        return {}

    def raw_get(self, key, default=None):
        data, deadline = self._client.get(self._get_key(key), (None, 0))
        return data if time.monotonic() < deadline else default

    def raw_set(self, key, value, ttl):
        deadline = float("inf") if ttl is None else time.monotonic() + ttl
        self._client[self._get_key(key)] = (value, deadline)


class TestOld(DriverConformance):
    shared = lists_keys = tells_ttl = removes_keys = False

    def make(self, key_prefix, **options):
        return OldKVS("old", {}, key_prefix, **options)
"""


class Fault(NamedTuple):
    """What a driver does wrong, and a test that finds it."""

    part: str
    code: str
    test: str


FAULTS = [
    Fault(
        "Abilities",
        "raw_ttl = KVS.raw_ttl",
        "test_the_class_says_what_the_driver_lacks",
    ),
    Fault(
        "Values",
        "def raw_get_many(self, keys): return {key: self.raw_get(key, '0') for key in keys}",
        "test_many",
    ),
    Fault(
        "Keys",
        "def _get_key(self, key): return super()._get_key(key.strip())",
        "test_similar_keys_are_different",
    ),
    Fault(
        "Lifetimes",
        "def raw_set(self, key, value, ttl): super().raw_set(key, value, ttl and int(ttl) + 1)",
        "test_a_ttl_may_be_a_fraction_of_a_second",
    ),
    Fault(
        "Counters",
        "def _ttl_or_none(self, key): return -1.0",
        "test_only_the_first_incr_sets_the_ttl",
    ),
    Fault(
        "Updates",
        "def raw_load(self, key, renew=None): return super().raw_load(key)",
        "test_load_renews",
    ),
    Fault(
        "Claims",
        "def raw_release(self, key, owner, pause=0): self.delete(self._claim_key(key))",
        "test_a_late_owner_does_not_release_the_claim_of_another",
    ),
    Fault(
        "Threads",
        "def raw_delete(self, key):\n"
        "        data = self.raw_get(key); time.sleep(0.01); self._remove(key); return data",
        "test_threads_delete_once",
    ),
    Fault(
        "Processes",
        "shared_by_processes = False",
        "test_twelve_processes_count_exactly",
    ),
]


def wrong(fault: Fault) -> str:
    """Return the module of a driver with a fault."""
    driver = f"{DRIVER}\n\nclass WrongKVS(SmallKVS):\n    {fault.code}\n"
    suite = SUITE.replace("SmallKVS", "WrongKVS")
    return driver + (suite.replace("shared = False", "") if fault.part == "Processes" else suite)


def test_a_driver_of_one_process_passes(bare_python: Path, tmp_path: Path) -> None:
    found = run(bare_python, tmp_path, "-n", "2", small=DRIVER + SUITE)
    assert found.status == 0, found.output
    assert found.outcomes["passed"] > 150
    assert found.outcomes["skipped"] == 4, found.output
    assert "shared = False" in found.output


def test_a_driver_without_ttl_passes_if_the_class_says_so(
    bare_python: Path, tmp_path: Path
) -> None:
    driver = f"{DRIVER}\n    raw_ttl = KVS.raw_ttl\n{SUITE}    tells_ttl = False\n"
    found = run(bare_python, tmp_path, "-n", "2", small=driver)
    assert found.status == 0, found.output
    assert found.outcomes["passed"] > 100
    assert "the small driver cannot tell the ttl of a key (tells_ttl = False)" in found.output


def test_a_driver_of_1_0_passes_if_the_class_says_what_it_lacks(
    bare_python: Path, tmp_path: Path
) -> None:
    found = run(bare_python, tmp_path, "-n", "2", old=OF_1_0)
    assert found.status == 0, found.output


def test_every_part_of_the_suite_has_a_fault() -> None:
    parts = {cls.__name__ for cls in DriverConformance.__bases__}
    assert {fault.part for fault in FAULTS} == parts


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.part)
def test_the_suite_finds_a_fault(bare_python: Path, tmp_path: Path, fault: Fault) -> None:
    found = run(bare_python, tmp_path, "-k", fault.test, wrong=wrong(fault))
    assert found.status == 1, found.output
    assert re.search(
        rf"^FAILED test_wrong.py::TestDriver::{fault.test}\b", found.output, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("", "TestDriver has no make(self, key_prefix, **options), which returns a driver"),
        ("return DATA", "TestDriver.make returned dict, which is not a subclass of KVS"),
        ("return SmallKVS('small', {}, **options)", "did not give its key_prefix to the driver"),
        ("return SmallKVS('small', {}, key_prefix)", "its **options to the driver: ttl is missing"),
    ],
)
def test_a_wrong_make_is_explained(
    bare_python: Path, tmp_path: Path, make: str, message: str
) -> None:
    body = make and f"    def make(self, key_prefix, **options):\n        {make}\n"
    text = f"{DRIVER}\n\nclass TestDriver(DriverConformance):\n    shared = False\n{body}"
    found = run(bare_python, tmp_path, "-k", "test_the_ttl_of_the_driver_is_the", driver=text)
    assert found.status == 1
    assert message in found.output


@pytest.mark.parametrize(
    ("driver", "suite", "message"),
    [
        ("raw_ttl = KVS.raw_ttl", "", "define raw_ttl(key) or say tells_ttl = False"),
        ("get_keys = KVS.get_keys", "", "define get_keys(pattern) or say lists_keys = False"),
        ("", "removes_keys = False", "the driver can remove a key: remove removes_keys = False"),
    ],
)
def test_what_a_driver_lacks_is_explained(
    bare_python: Path, tmp_path: Path, driver: str, suite: str, message: str
) -> None:
    text = f"{DRIVER}\n    {driver}\n{SUITE}    {suite}\n"
    found = run(bare_python, tmp_path, "-k", "test_the_class_says", driver=text)
    assert (found.status, found.outcomes["failed"]) == (1, 1)
    assert message in found.output


def test_a_test_that_needs_what_a_driver_lacks_says_what_to_do(
    bare_python: Path, tmp_path: Path
) -> None:
    text = f"{DRIVER}\n    get_keys = KVS.get_keys\n{SUITE}"
    found = run(bare_python, tmp_path, "-k", "test_get_keys", driver=text)
    assert found.status == 1
    assert "the small driver cannot list keys" in found.output
    assert "define get_keys(pattern) or say lists_keys = False" in found.output

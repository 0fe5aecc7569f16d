"""Drivers by name: built in, registered, or from an entry point."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pyramid_kvs.kvs import KVS, driver_class, driver_names, register


def test_unknown_driver_names_the_closest() -> None:
    with pytest.raises(LookupError) as info:
        KVS("reddis")
    message = str(info.value)
    assert message.startswith("unknown driver 'reddis' (known: CallsSuper, ClientOnly,")
    assert message.endswith("did you mean 'redis'?)")
    with pytest.raises(LookupError, match="did you mean 'redis'"):
        KVS("REDIS")


def test_mock_is_for_tests_only() -> None:
    with pytest.raises(LookupError, match=r"pyramid_kvs\.testing"):
        KVS("mock")


def test_memcached_is_an_alias() -> None:
    assert driver_class("memcached") is driver_class("memcache")
    assert "memcached" not in driver_names()


def test_a_driver_is_a_kvs() -> None:
    register("wrong", dict)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a subclass"):
        KVS("wrong")


def test_a_missing_library_names_the_package_to_install(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(name='psycopg')")
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from pyramid_kvs.kvs import KVS
        try:
            KVS("postgresql")
        except ImportError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "postgresql driver needs 'psycopg'" in printed
    assert "pip install pyramid_kvs[postgresql]" in printed


def test_a_driver_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_plugin.py").write_text(
        "from pyramid_kvs.drivers.memory import MemoryKVS\nclass Plugged(MemoryKVS): pass\n"
    )
    info = tmp_path / "a_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a_plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pyramid_kvs.drivers]\nplugged = a_plugin:Plugged\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kvs = KVS("plugged")
    assert type(kvs).__name__ == "Plugged"
    assert "plugged" in driver_names()

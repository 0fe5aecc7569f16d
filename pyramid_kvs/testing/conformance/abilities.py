"""What the class of a driver says about it is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ...exceptions import KVSNotSupported
from ...kvs import KVS
from .base import ABILITIES, Base, advice

_PROBES: dict[str, Callable[[KVS], Any]] = {
    "lists_keys": lambda kvs: kvs.get_keys(),
    "tells_ttl": lambda kvs: kvs.ttl_of("key"),
    "removes_keys": lambda kvs: kvs.delete("key"),
}


class Abilities(Base):
    @pytest.mark.parametrize("name", list(ABILITIES))
    def test_the_class_says_what_the_driver_lacks(self, kvs: KVS, name: str) -> None:
        kvs.set("key", 1)
        said, found = getattr(self, name), _has(kvs, name)
        can = ABILITIES[name][0]
        assert found or not said, f"the driver cannot {can}; {advice(type(self), [name])}"
        assert said or not found, f"the driver can {can}: remove {name} = False"


def _has(kvs: KVS, name: str) -> bool:
    try:
        _PROBES[name](kvs)
    except KVSNotSupported:
        return False
    return True

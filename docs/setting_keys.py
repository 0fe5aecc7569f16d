"""The keys of each setting, from the code, and what the pages say about them."""

from __future__ import annotations

import importlib
import json
import re

from pyramid_kvs.settings import REQUIRED, InvalidOption, Option

MODULES = {
    "kvs.cache": "pyramid_kvs.cache.settings",
    "kvs.session": "pyramid_kvs.session.settings",
    "kvs.ratelimit": "pyramid_kvs.ratelimit.settings",
    "kvs.perlsess": "pyramid_kvs.perlsess.settings",
}
#: The alias ``type`` is described with ``kvs``.
LEFT_OUT = {"type"}
SHARED = """
kvs: required
    the driver: ``redis``, ``memcache``, ``memory``, ``postgresql``, or a driver that you add
    (:doc:`drivers`); ``type`` is an alias
kvs_kwargs
    options for the driver's client, which the page of each driver lists
codec
    the codec that converts values to stored data (:doc:`codecs`)
fallback_codec
    a codec for stored data that ``codec`` cannot decode
secret
    signs pickled values
ttl
    the lifetime in seconds; ``null`` means that values never expire
key_prefix
    the prefix of every key in the store
"""
_KEY = re.compile(r"(?P<key>\w+)(: (?P<default>.+))?$")


class Meaning:
    """What a page says about one key."""

    def __init__(self, default: str | None) -> None:
        self.default = default
        self.lines: list[str] = []


def read_meanings(lines: list[str]) -> dict[str, Meaning]:
    found: dict[str, Meaning] = {}
    for line in lines:
        if head := _KEY.match(line):
            meaning = found[head["key"]] = Meaning(head["default"])
        elif line.strip():
            meaning.lines.append(line.strip())
    return found


def read_options(setting: str) -> dict[str, Option]:
    options: dict[str, Option] = importlib.import_module(MODULES[setting]).OPTIONS
    return {key: option for key, option in options.items() if key not in LEFT_OUT}


def allowed(option: Option) -> str:
    """Return what the check of an option says when it refuses a value."""
    try:
        option.check(object())
    except InvalidOption as error:
        return str(error)
    raise AssertionError(f"{option} allows everything")


def default_of(option: Option, meaning: Meaning) -> str:
    if meaning.default is not None:
        return meaning.default
    return "required" if option.default is REQUIRED else f"``{json.dumps(option.default)}``"

"""Skips records without creating values. The records here can be represented in Python."""

from __future__ import annotations

from typing import Final

from ..format import (
    CONSTANTS,
    KEY_LOCKED,
    KEY_PLACEHOLDER,
    KEY_RECORD,
    SX_ARRAY,
    SX_BYTE,
    SX_DOUBLE,
    SX_FLAG_HASH,
    SX_HASH,
    SX_INTEGER,
    SX_LSCALAR,
    SX_LUTF8STR,
    SX_NETINT,
    SX_OBJECT,
    SX_REF,
    SX_SCALAR,
    SX_UTF8STR,
)
from .odd_records import skip_odd_record
from .walk import Walk

CONTAINERS: Final = (SX_ARRAY, SX_HASH, SX_FLAG_HASH)
SHORT_STRINGS: Final = (SX_SCALAR, SX_UTF8STR)
LONG_STRINGS: Final = (SX_LSCALAR, SX_LUTF8STR)
RESTRICTED: Final = KEY_RECORD | KEY_PLACEHOLDER | KEY_LOCKED
"""The key flags of hashes that are restricted, and so cannot be changed."""


class Scanner(Walk):
    """Skips the records of an image, and notes where objects and classes are named."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.scalar_sizes = {
            **dict.fromkeys(CONSTANTS, 0),
            SX_BYTE: 1,
            SX_NETINT: 4,
            SX_INTEGER: self.header.iv_size,
            SX_DOUBLE: self.header.nv_size,
        }

    def element(self) -> None:
        """Skip the record of an item of an array, or of a value in a hash."""
        kind = self.byte()
        if kind == SX_REF:
            self.tag += 1
            self.push(self.target)
        elif not self._scalar(kind):
            skip_odd_record(self, kind)

    def target(self) -> None:
        """Skip the record that a reference in a container leads to."""
        kind = self.byte()
        if kind in CONTAINERS:
            self.container(kind)
        elif kind == SX_OBJECT:
            tag = self.object_tag()
            if tag == self.root_tag:
                self.note("a reference to the session itself")
            elif tag not in self.containers:
                self.note("a reference to a scalar")
        elif self._scalar(kind):
            self.note("a reference to a scalar")
        else:
            skip_odd_record(self, kind)

    def record(self) -> None:
        kind = self.byte()
        if not self._scalar(kind):
            skip_odd_record(self, kind)

    def _scalar(self, kind: int) -> bool:
        """Skip a record after its type byte, and return True, if it is a scalar."""
        size = self.scalar_sizes.get(kind)
        if size is None:
            if kind in SHORT_STRINGS:
                size = self.byte()
            elif kind in LONG_STRINGS:
                size = self.number()
            else:
                return False
        self.skip(size)
        self.tag += 1
        return True

    # -- containers

    def container(self, kind: int) -> None:
        self.containers.add(self.tag)
        self.tag += 1
        if kind == SX_ARRAY:
            self.push(self.element, self.number())
        elif kind == SX_HASH:
            self.push(self.pair, self.number())
        else:
            if self.byte():
                self.note("a restricted hash")
            self.push(self.flagged_pair, self.number())

    def pair(self) -> None:
        self.push(self.key)
        self.push(self.element)

    def key(self) -> None:
        self.skip(self.number())

    def flagged_pair(self) -> None:
        self.push(self.flagged_key)
        self.push(self.element)

    def flagged_key(self) -> None:
        flags = self.byte()
        if flags & RESTRICTED:
            self.note("a restricted hash")
        if flags & KEY_RECORD:
            self.push(self.record)
        else:
            self.key()

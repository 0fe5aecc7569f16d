"""Decodes tagged JSON, the form in which Perl describes the values of images to the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# A list or dict that is being decoded: the items still to come, as (key, item), and what stores
# a decoded item.
Open = tuple[Iterator[tuple[Any, Any]], Callable[[Any, Any], None]]


def decode(encoded: Any) -> Any:
    """Convert the result of ``pyramid_kvs.storable.tagged_json.encode`` back to the value.

    It is not recursive, so that deep values can be compared.

    :raises ValueError: a tag is followed by something else than its value.
    """
    decoder = Decoder()
    root, opened = decoder.begin(encoded)
    stack = [] if opened is None else [opened]
    while stack:
        items, store = stack[-1]
        for key, item in items:
            value, opened = decoder.begin(item)
            store(key, value)
            if opened is not None:
                stack.append(opened)
                break
        else:
            stack.pop()
    return root


class Decoder:
    """Decodes each part of a value; the items of a list or dict are left to the caller."""

    def __init__(self) -> None:
        self.objects: dict[int, Any] = {}

    def begin(self, encoded: Any) -> tuple[Any, Open | None]:
        if isinstance(encoded, dict) and encoded.keys() == {"$id", "$value"}:
            value, opened = self.begin_container(encoded["$value"])
            self.objects[encoded["$id"]] = value
            return value, opened
        if isinstance(encoded, (list, dict)):
            return self.begin_container(encoded)
        return encoded, None

    def begin_container(self, encoded: Any) -> tuple[Any, Open | None]:
        if isinstance(encoded, list):
            items: list[Any] = []
            return items, (enumerate(encoded), lambda _, item: items.append(item))
        body: dict[Any, Any] = {}
        if "$dict" in encoded:
            pairs = ((self.begin(key)[0], item) for key, item in encoded["$dict"])
            return body, (pairs, body.__setitem__)
        tag = next(iter(encoded), "")
        if tag.startswith("$"):
            return self.decode_tag(tag, encoded[tag]), None
        return body, (iter(encoded.items()), body.__setitem__)

    def decode_tag(self, tag: str, body: Any) -> Any:
        if tag == "$bytes":
            return bytes.fromhex(body)
        if tag == "$float" and body in ("inf", "-inf", "nan"):
            return float(body)
        if tag == "$ref" and body in self.objects:
            return self.objects[body]
        raise ValueError(f"{tag!r} is followed by something else than its value")

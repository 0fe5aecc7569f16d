"""Whether a codec keeps what sessions need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyramid.exceptions import ConfigurationError

from ..messages import quoted
from ..serializer import Codec
from .records import CREATED, check_metadata

#: What must be the same afterwards, and what it is.
_SAMPLES: dict[str, Any] = {
    "strings": ["", "1", "none", "a\n\0", "\xe9 \u20ac \U0001f511", "0123456789abcdef" * 4],
    "keys that are strings": {"": "", "1": "a", "_f_": "b", "\xe9\u20ac": "c"},
    "lists": [[], ["a", ["b"], {"c": []}]],
    "dicts": {"empty": {}, "nested": {"a": {"b": {}}}},
}
_TIME = 1767225600.123456


def check_codec(setting: str, name: str, codec: Codec) -> None:
    """Refuse a codec that would lose a part of a session.

    Numbers may become strings, as in Perl's Storable.

    :param name: the codec's name, for the message.
    :raises ConfigurationError: the message says what was lost.
    """
    lost = list(_lost(codec))
    if lost:
        raise ConfigurationError(
            f"{setting}: codec: {quoted(name)} does not keep {', '.join(lost)}, which sessions "
            "need; for example, 'json' does"
        )


def _lost(codec: Codec) -> Iterator[str]:
    for name, sample in _SAMPLES.items():
        if _round_trip(codec, {"sample": sample}) != {"sample": sample}:
            yield name
    if not _keeps_times(_round_trip(codec, {CREATED: _TIME})):
        yield "numbers"


def _keeps_times(found: Any) -> bool:
    try:
        check_metadata(found)
        return bool(abs(found[CREATED] - _TIME) < 1)
    except Exception:  # noqa: BLE001  # it can be anything
        return False


def _round_trip(codec: Codec, value: Any) -> Any:
    try:
        return codec.loads(codec.dumps(value))
    except Exception:  # noqa: BLE001  # each codec raises errors of another kind
        return None

"""Counting by Lua scripts: all limits of a request and its session in one call.

A script consists of some of the ``.lua`` files. ``session.lua`` loads the session first, which
decides where a limit counts. Then come the strategies and what calls them: ``one.lua`` for a
single limit, which takes the server two thirds of the time of ``several.lua``.

A strategy is a function of key, limit, window in ms, cost, burst, whether to count past the limit,
and the age in ms of returned units. It returns four to six values: allowed (1 or 0), remaining,
reset in ms, retry in ms, and what to write, if anything. That is a value and its ttl in ms, or
without a ttl a number to add to the value at the key.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from ...kvs import (
    PackedArguments,
    PreparedCall,
    RunsScripts,
    Script,
    ScriptCall,
    Stored,
    new_tuple,
    pack_arguments,
    ttl_word,
)
from .rules import COUNT, Hit, LimitCheck, LimitResult, Rule

#: Instead of the only check.
_NONE = (None, None, None)

#: How many values the reply of several.lua has for each check.
_RESULTS = 4


#: The files of each strategy. The function has the name of the last one.
_STRATEGIES = {
    "fixed-window": ["fixed_window"],
    "sliding-window": ["now", "sliding_window"],
    "gcra": ["now", "gcra"],
}


def _lua(*names: str) -> str:
    folder = files(__package__)
    return "\n".join([folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names])


_ONE = {
    strategy: Script(_lua("session", *names) + f"local count = {names[-1]}\n" + _lua("one"))
    for strategy, names in _STRATEGIES.items()
}
_SEVERAL = Script(_lua("session", "now", "fixed_window", "sliding_window", "gcra", "several"))


def hit(
    driver: RunsScripts,
    checks: Sequence[LimitCheck],
    session_key: str | None = None,
    renew: float | None = None,
) -> Hit:
    """Count one request; see :class:`~pyramid_kvs.ratelimit.counting.RequestCounter`."""
    if len(checks) != 1:
        return _hit_several(driver, checks, session_key, renew)
    [(rule, key, unknown_key)] = checks
    call = _call_of_one(rule, session_key is not None, renew)
    if call is None or key is None or unknown_key is None:
        return _hit_several(driver, checks, session_key, renew)
    keys = (unknown_key,) if session_key is None else (session_key, key, unknown_key)
    session, allowed, remaining, reset_ms, retry_ms = driver.run_prepared(call, keys)
    is_known, is_allowed = session is not None, allowed == 1
    result = new_tuple(LimitResult, (is_allowed, remaining, reset_ms, retry_ms))
    loaded = new_tuple(Stored, (session, None, 0)) if is_known else None
    return new_tuple(Hit, ([result], loaded, is_known, is_allowed, is_allowed))


def _hit_several(
    driver: RunsScripts, checks: Sequence[LimitCheck], session_key: str | None, renew: float | None
) -> Hit:
    call = _several(driver, checks, session_key, renew)
    if not call.keys:  # nobody is counted
        return Hit.of(checks, [None] * len(checks), None)
    return hit_in(driver.run_packed(*call), checks)


def script_call(
    driver: RunsScripts,
    checks: Sequence[LimitCheck],
    session_key: str | None = None,
    renew: float | None = None,
) -> ScriptCall:
    """Return the call that counts one request; see :func:`hit_in` for its reply.

    No other keys are sent than those of the checks and of the session, and no key of a check is
    ``None`` but the one for an unknown session.
    """
    rule, key, unknown_key = checks[0] if len(checks) == 1 else _NONE
    has_session = session_key is not None
    call = None if rule is None else _call_of_one(rule, has_session, renew)
    if call is None or (has_session and unknown_key is not None):
        return _several(driver, checks, session_key, renew)
    keys = [driver._get_key(found) for found in (session_key, key) if found is not None]
    return ScriptCall(call.script, keys, call.args)


def hit_in(reply: Sequence[Any], checks: Sequence[LimitCheck]) -> Hit:
    """Return the outcome that the reply of a script tells."""
    starts = range(1, len(reply), _RESULTS)
    results = [_result(*reply[start : start + _RESULTS]) for start in starts]
    return Hit.of(checks, results, None if reply[0] is None else Stored(reply[0]))


def _several(
    driver: RunsScripts, checks: Sequence[LimitCheck], session_key: str | None, renew: float | None
) -> ScriptCall:
    keys, places = _keys(driver, checks, session_key)
    rules = tuple([check.rule for check in checks])
    # The age of returned units is different each time.
    pack = _arguments.__wrapped__ if any(rule.age_ms for rule in rules) else _arguments
    args = pack(rules, tuple(places), session_key is not None, renew)
    return ScriptCall(_SEVERAL, keys, args)


@functools.lru_cache(maxsize=1024)
def _call_of_one(rule: Rule, has_session: bool, renew: float | None) -> PreparedCall | None:
    """Return the call that counts by a single rule, with a key or with three.

    It is ``None`` if one.lua does not count the rule.
    """
    if rule.mode is not COUNT or rule.is_shadow or rule.age_ms:
        return None
    words = [_session_word(has_session, renew), *_rule_words(rule)[1:5]]
    args = pack_arguments(words if rule.strategy == "gcra" else words[:-1])
    return PreparedCall(_ONE[rule.strategy], 3 if has_session else 1, args)


def _keys(
    driver: RunsScripts, checks: Sequence[LimitCheck], session_key: str | None
) -> tuple[list[bytes], list[int]]:
    """Return full keys, and for each key of each check its place among them; 0 for ``None``."""
    keys = [] if session_key is None else [driver._get_key(session_key)]
    indexes: dict[str | None, int] = {None: 0}
    places = []
    for check in checks:
        for key in (check.key, check.unknown_key):
            if key is not None and key not in indexes:
                keys.append(driver._get_key(key))
                indexes[key] = len(keys)
            places.append(indexes[key])
    return keys, places


@functools.lru_cache(maxsize=1024)
def _arguments(
    rules: tuple[Rule, ...], places: tuple[int, ...], has_session: bool, renew: float | None
) -> PackedArguments:
    words = [_session_word(has_session, renew)]
    for rule, known, unknown in zip(rules, places[::2], places[1::2], strict=True):
        words += [*_rule_words(rule), b"%d" % known, b"%d" % unknown]
    return pack_arguments(words)


def _session_word(has_session: bool, renew: float | None) -> bytes:
    if not has_session:
        return b"-"
    return b"" if renew is None else ttl_word(renew)


def _rule_words(rule: Rule) -> list[bytes]:
    numbers = (rule.limit, rule.window_ms, rule.cost, rule.burst)
    modes = (rule.mode.encode(), b"%d" % rule.is_shadow, b"%d" % rule.age_ms)
    return [rule.strategy.encode(), *(b"%d" % number for number in numbers), *modes]


def _result(allowed: int, remaining: int, reset_ms: int, retry_ms: int) -> LimitResult | None:
    return None if allowed == -1 else LimitResult(allowed == 1, remaining, reset_ms, retry_ms)

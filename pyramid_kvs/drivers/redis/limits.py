"""The strategies of ``limits.py`` in Lua: all limits of a request in one call.

The call also reads the session, which starts its ttl again, since the session being known or
not decides which counter a limit takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ...kvs import Stored
from ...limits import Hit, LimitCheck, LimitResult, Rule
from .commands import pack_words

#: Words of the script's reply for each check.
FIELDS = 4

# KEYS: full keys in any order. ARGV: the index of the session's key (0: none), its new ttl in ms
# ('': as it is), then for each check: strategy, limit, window in ms, burst, cost, index of the
# counter's key when the session is known, and when it is not (0: not limited).
# Reply: the session's data, then for each check: allowed (-1: not limited), remaining, reset in
# ms, retry in ms.
SOURCE = """
local min, max, floor, ceil = math.min, math.max, math.floor, math.ceil
local match, format, call = string.match, string.format, redis.call

local function now()
    local time = call('TIME')
    return time[1] * 1000 + floor(time[2] / 1000)
end

-- Each strategy returns allowed, remaining, reset, retry, and what to write: a value and its ttl
-- in ms, or without a ttl what to add to the number that is there.

-- A plain number, as 1.0 kept it; the window's end is when the key expires.
local function fixed_window(key, limit, window, burst, cost)
    local text = call('GET', key)
    if not text or #text > 15 or not match(text, '^%d+$') then
        if cost > limit then return 0, limit, window, window end
        return 1, min(limit, limit - cost), window, 0, format('%.0f', max(0, cost)), window
    end
    local count, left = tonumber(text), call('PTTL', key)
    if left < 0 or left > window then
        left = window
        call('PEXPIRE', key, window)
    end
    local used = max(0, count + cost)
    if cost > 0 and used > limit then return 0, max(0, limit - count), left, left end
    return 1, max(0, limit - used), left, 0, used - count
end

local function until_room(room, window, elapsed, current, previous)
    if room < 0 or room >= current + previous then return 0 end
    if room >= current then
        return max(0, window - elapsed - floor((room - current) * window / previous))
    end
    return window - elapsed + window - floor(room * window / current)
end

local function sliding_window(key, limit, window, burst, cost)
    local time = now()
    local start, current, previous = match(call('GET', key) or '', '^s:(%d+):(%d+):(%d+)$')
    if start then
        start, current, previous = min(tonumber(start), time), tonumber(current), tonumber(previous)
    else
        start, current, previous = time, 0, 0
    end
    if time - start >= 2 * window then
        start, current, previous = time, 0, 0
    elseif time - start >= window then
        start, current, previous = start + window, 0, current
    end
    local elapsed = time - start
    local used = current + ceil(previous * (window - elapsed) / window)
    if cost > 0 and used + cost > limit then
        local remaining = max(0, limit - used)
        return 0, remaining,
            until_room(limit - remaining - 1, window, elapsed, current, previous),
            until_room(limit - cost, window, elapsed, current, previous)
    end
    current = max(0, current + cost)
    local remaining = max(0, min(limit, limit - used - cost))
    return 1, remaining,
        until_room(limit - remaining - 1, window, elapsed, current, previous), 0,
        format('s:%.0f:%.0f:%.0f', start, current, previous), 2 * window - elapsed
end

local function up(milliseconds)
    return max(0, ceil(milliseconds - 1e-6))
end

local function gcra(key, limit, window, burst, cost)
    local time, unit = now(), window / limit
    local level, at = match(call('GET', key) or '', '^g:(%d[%d.e+-]*):(%d+)$')
    level, at = tonumber(level or 0), tonumber(at)
    if not (level and at and level < 1e15) then level, at = 0, time end
    level = max(0, level - max(0, time - at) * limit / window)
    local used = max(0, level + cost)
    if cost > 0 and used > burst + 1e-6 then
        local remaining = max(0, floor(burst - level + 1e-6))
        return 0, remaining, up((level - (burst - remaining - 1)) * unit), up((used - burst) * unit)
    end
    local remaining = max(0, floor(burst - used + 1e-6))
    return 1, remaining, up((used - max(0, burst - remaining - 1)) * unit), 0,
        format('g:%.17g:%.0f', used, time), max(1, ceil(used * unit))
end

local session = false
if ARGV[1] ~= '0' then
    local key = KEYS[tonumber(ARGV[1])]
    if ARGV[2] == '' then
        session = call('GET', key)
    else
        session = call('GETEX', key, 'PX', ARGV[2])
    end
end

local place = session and 5 or 6
local reply, writes, refused = {session}, {}, false

local function check(base, key, cost)
    local strategy = ARGV[base]
    local count = strategy == 'fixed-window' and fixed_window
        or strategy == 'sliding-window' and sliding_window or gcra
    return count(key, tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2]),
        tonumber(ARGV[base + 3]), cost)
end

for base = 3, #ARGV, 7 do
    local key, at = KEYS[tonumber(ARGV[base + place])], #reply
    reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = -1, 0, 0, 0
    if key then
        local allowed, remaining, reset, retry, value, ttl =
            check(base, key, tonumber(ARGV[base + 4]))
        reply[at + 1], reply[at + 2], reply[at + 3] = allowed, remaining, reset
        if allowed == 1 then
            writes[#writes + 1] = {key, value, ttl}
        else
            reply[at + 4], refused = max(reset, retry), true
        end
    end
end

if not refused then
    for _, write in ipairs(writes) do
        if write[3] then
            call('SET', write[1], write[2], 'PX', write[3])
        else
            call('INCRBY', write[1], write[2])
        end
    end
    return reply
end

-- What the other limits say to a request that is not counted.
for base = 3, #ARGV, 7 do
    local at = 2 + (base - 3) / 7 * 4
    if reply[at] == 1 then
        local key = KEYS[tonumber(ARGV[base + place])]
        local _, remaining, reset = check(base, key, min(0, tonumber(ARGV[base + 4])))
        reply[at + 1], reply[at + 2] = remaining, reset
    end
end
return reply
"""

# A single fixed window, as most requests have it: the general script takes the server twice as
# long (11.5 against 6 microseconds). KEYS: the counter when the session is known, and when it is
# not, the session (both left out: there is none). ARGV: limit, window in ms, cost, new ttl.
SINGLE = """
local session = false
if KEYS[3] and ARGV[4] == '' then
    session = redis.call('GET', KEYS[3])
elseif KEYS[3] then
    session = redis.call('GETEX', KEYS[3], 'PX', ARGV[4])
end
local key = KEYS[3] and not session and KEYS[2] or KEYS[1]
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local text = redis.call('GET', key)
if not text or #text > 15 or not string.match(text, '^%d+$') then
    if cost > limit then return {session, 0, limit, window, window} end
    redis.call('SET', key, math.max(0, cost), 'PX', ARGV[2])
    return {session, 1, math.min(limit, limit - cost), window, 0}
end
local count, left = tonumber(text), redis.call('PTTL', key)
if left < 0 or left > window then
    left = window
    redis.call('PEXPIRE', key, window)
end
local used = math.max(0, count + cost)
if cost > 0 and used > limit then return {session, 0, math.max(0, limit - count), left, left} end
redis.call('INCRBY', key, used - count)
return {session, 1, math.max(0, limit - used), left, 0}
"""


def is_single(checks: Sequence[LimitCheck]) -> bool:
    """Return whether :data:`SINGLE` does it."""
    if len(checks) != 1 or checks[0].rule.strategy != "fixed-window":
        return False
    return checks[0].key is not None and checks[0].unknown_key is not None


_THREE_KEYS = b"$1\r\n3\r\n" + 3 * b"$%d\r\n%b\r\n" + b"%b"


def pack_single(
    check: LimitCheck,
    session_key: str | None,
    renew_ms: int | None,
    full_key: Callable[[str], bytes],
) -> tuple[int, bytes]:
    """Return the words of the call of :data:`SINGLE`, packed, and how many they are."""
    args = _single_args(check.rule, renew_ms)
    counter = full_key(check.unknown_key)  # type: ignore[arg-type]
    if session_key is None:
        return 6, b"$1\r\n1\r\n$%d\r\n%b\r\n%b" % (len(counter), counter, args)
    known, session = full_key(check.key), full_key(session_key)  # type: ignore[arg-type]
    lengths_and_keys = (len(known), known, len(counter), counter, len(session), session)
    return 8, _THREE_KEYS % (*lengths_and_keys, args)


@functools.lru_cache(maxsize=1024)
def _single_args(rule: Rule, renew_ms: int | None) -> bytes:
    words = [b"%d" % number for number in (rule.limit, rule.window_ms, rule.cost)]
    return pack_words((*words, b"" if renew_ms is None else b"%d" % renew_ms))


def pack_hit(
    checks: Sequence[LimitCheck],
    session_key: str | None,
    renew_ms: int | None,
    full_key: Callable[[str], bytes],
) -> tuple[list[bytes], list[bytes]]:
    """Return the keys and the arguments of the call of :data:`SOURCE`."""
    keys: list[bytes] = []
    args = [b"0", b"" if renew_ms is None else b"%d" % renew_ms]
    if session_key is not None:
        keys.append(full_key(session_key))
        args[0] = b"1"
    places: dict[str | None, bytes] = {None: b"0"}
    for check in checks:
        args += _rule_words(check.rule)
        for key in (check.key, check.unknown_key):
            if key not in places:
                keys.append(full_key(key))  # type: ignore[arg-type]
                places[key] = b"%d" % len(keys)
            args.append(places[key])
    return keys, args


def unpack_hit(reply: list[bytes | int | None]) -> Hit:
    """Return what a script's reply says."""
    session = None if reply[0] is None else Stored(reply[0])  # type: ignore[arg-type]
    if len(reply) == 1 + FIELDS:
        return Hit([_result(*reply[1:])], session)
    starts = range(1, len(reply), FIELDS)
    return Hit([_result(*reply[start : start + FIELDS]) for start in starts], session)


def _result(allowed: Any, remaining: Any, reset_ms: Any, retry_ms: Any) -> LimitResult | None:
    return None if allowed == -1 else LimitResult(allowed == 1, remaining, reset_ms, retry_ms)


@functools.lru_cache(maxsize=1024)
def _rule_words(rule: Rule) -> list[bytes]:
    return [rule.strategy.encode(), *(b"%d" % number for number in rule[1:])]

"""The strategies of ``limits.py`` in Lua: all limits of a request in one call.

The call also reads the session, which starts its ttl again, since the session being known or
not decides which counter a limit takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from ..kvs import Stored
from ..limits import Hit, LimitCheck, LimitResult, Rule

#: Words of the script's reply for each check.
FIELDS = 4

# KEYS: full keys in any order. ARGV: the index of the session's key (0: none), its new ttl in ms
# ('': as it is), then for each check: strategy, limit, window in ms, burst, cost, index of the
# counter's key when the session is known, and when it is not (0: not limited).
# Reply: the session's data, then for each check: allowed (-1: not limited), remaining, reset in
# ms, retry in ms.
SOURCE = """
local clock

local function now()
    if not clock then
        local time = redis.call('TIME')
        clock = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    return clock
end

local function numbers(text, pattern)
    local a, b, c = string.match(text or '', pattern)
    return tonumber(a), tonumber(b), tonumber(c)
end

local strategies = {}

-- A plain number, as 1.0 kept it; the window's end is when the key expires.
strategies['fixed-window'] = function(key, limit, window, burst, cost)
    local text = redis.call('GET', key)
    local count = text and #text < 16 and numbers(text, '^(%d+)$')
    local left, clocked = window, false
    if count then
        left = redis.call('PTTL', key)
        clocked = left > 0 and left <= window
        left = clocked and left or window
    end
    local counted = count or 0
    local used = math.max(0, counted + cost)
    local function keep()
        if count then
            redis.call('INCRBY', key, used - counted)
        else
            redis.call('SET', key, string.format('%.0f', used), 'PX', window)
        end
    end
    if count and not clocked then redis.call('PEXPIRE', key, window) end
    if cost > 0 and used > limit then
        return 0, math.max(0, limit - counted), left, left
    end
    return 1, math.max(0, limit - used), left, 0, keep
end

local function until_room(room, window, elapsed, current, previous)
    if room < 0 or room >= current + previous then return 0 end
    if room >= current then
        return math.max(0, window - elapsed - math.floor((room - current) * window / previous))
    end
    return window - elapsed + window - math.floor(room * window / current)
end

strategies['sliding-window'] = function(key, limit, window, burst, cost)
    local time = now()
    local start, current, previous = numbers(redis.call('GET', key), '^s:(%d+):(%d+):(%d+)$')
    if not start then start, current, previous = time, 0, 0 end
    start = math.min(start, time)
    if time - start >= 2 * window then
        start, current, previous = time, 0, 0
    elseif time - start >= window then
        start, current, previous = start + window, 0, current
    end
    local elapsed = time - start
    local used = current + math.ceil(previous * (window - elapsed) / window)
    if cost > 0 and used + cost > limit then
        local remaining = math.max(0, limit - used)
        return 0, remaining,
            until_room(limit - remaining - 1, window, elapsed, current, previous),
            until_room(limit - cost, window, elapsed, current, previous)
    end
    current = math.max(0, current + cost)
    local remaining = math.max(0, math.min(limit, limit - used - cost))
    local function keep()
        local state = string.format('s:%.0f:%.0f:%.0f', start, current, previous)
        redis.call('SET', key, state, 'PX', 2 * window - elapsed)
    end
    return 1, remaining,
        until_room(limit - remaining - 1, window, elapsed, current, previous), 0, keep
end

local function up(milliseconds)
    return math.max(0, math.ceil(milliseconds - 1e-6))
end

strategies['gcra'] = function(key, limit, window, burst, cost)
    local time, unit = now(), window / limit
    local level, at = numbers(redis.call('GET', key), '^g:(%d[%d.e+-]*):(%d+)$')
    if not (level and at and level < 1e15) then level, at = 0, time end
    level = math.max(0, level - math.max(0, time - at) * limit / window)
    local used = math.max(0, level + cost)
    if cost > 0 and used > burst + 1e-6 then
        local remaining = math.max(0, math.floor(burst - level + 1e-6))
        return 0, remaining, up((level - (burst - remaining - 1)) * unit),
            up((used - burst) * unit)
    end
    local remaining = math.max(0, math.floor(burst - used + 1e-6))
    local reset = up((used - math.max(0, burst - remaining - 1)) * unit)
    local function keep()
        local state = string.format('g:%.17g:%.0f', used, time)
        redis.call('SET', key, state, 'PX', math.max(1, math.ceil(used * unit)))
    end
    return 1, remaining, reset, 0, keep
end

local session = false
if ARGV[1] ~= '0' then
    local key = KEYS[tonumber(ARGV[1])]
    if ARGV[2] == '' then
        session = redis.call('GET', key)
    else
        session = redis.call('GETEX', key, 'PX', ARGV[2])
    end
end

local function check(base, look)
    local key = KEYS[tonumber(ARGV[base + (session and 5 or 6)])]
    if not key then return -1, 0, 0, 0 end
    local cost = look and math.min(0, tonumber(ARGV[base + 4])) or tonumber(ARGV[base + 4])
    return strategies[ARGV[base]](key, tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2]),
        tonumber(ARGV[base + 3]), cost)
end

local reply, kept, refused = {session}, {}, false
for base = 3, #ARGV, 7 do
    local allowed, remaining, reset, retry, keep = check(base, false)
    kept[#kept + 1] = keep
    refused = refused or allowed == 0
    for _, word in ipairs({allowed, remaining, reset, math.max(reset, retry)}) do
        reply[#reply + 1] = word
    end
    if allowed == 1 then reply[#reply] = 0 end
end

if not refused then
    for _, keep in ipairs(kept) do keep() end
    return reply
end
for base = 3, #ARGV, 7 do
    local at = 2 + (base - 3) / 7 * 4
    if reply[at] == 1 then
        local _, remaining, reset = check(base, true)
        reply[at + 1], reply[at + 2] = remaining, reset
    end
end
return reply
"""


def pack_hit(
    checks: Sequence[LimitCheck],
    session_key: str | None,
    renew_ms: int | None,
    full_key: Callable[[str], bytes],
) -> tuple[list[bytes], list[bytes]]:
    """Return the keys and the arguments of the script's call."""
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
    """Return what the script's reply says."""
    session, *words = reply
    results: list[LimitResult | None] = []
    for at in range(0, len(words), FIELDS):
        allowed, *times = words[at : at + FIELDS]
        results.append(None if allowed == -1 else LimitResult(allowed == 1, *times))  # type: ignore[arg-type]
    return Hit(results, None if session is None else Stored(session))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1024)
def _rule_words(rule: Rule) -> list[bytes]:
    return [rule.strategy.encode(), *(b"%d" % number for number in rule[1:])]

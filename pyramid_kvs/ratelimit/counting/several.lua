-- Counts a request against several limits, with session.lua and the strategies before it. Either
-- all of the limits allow it, or none counts it.
--
-- KEYS: the session, if there is one to load, and the counters in any order.
-- ARGV: the session's new ttl, then for each check: strategy, limit, window in ms, cost, burst,
-- mode (count, look or force), 1 in shadow mode, age in ms of the units that are returned, and the
-- index of the counter's key if the session is known, and if it is not (0: not limited).
-- Reply: the session's data, then for each check: allowed (-1: not limited), remaining, reset in
-- ms, retry in ms.

local ARGS, RESULTS = 10, 4
local place = session and 8 or 9
local reply, writes, refused = {session}, {}, false

local function check(base, key, cost)
    local strategy = ARGV[base]
    local count = strategy == 'fixed-window' and fixed_window
        or strategy == 'sliding-window' and sliding_window or gcra
    return count(key, tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2]), cost,
        tonumber(ARGV[base + 4]), ARGV[base + 5] == 'force', tonumber(ARGV[base + 7]))
end

for base = 2, #ARGV, ARGS do
    local key, at = KEYS[tonumber(ARGV[base + place])], #reply
    reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = -1, 0, 0, 0
    if key then
        local allowed, remaining, reset, retry, value, ttl =
            check(base, key, tonumber(ARGV[base + 3]))
        reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = allowed, remaining, reset, retry
        if allowed == 0 then
            refused = refused or ARGV[base + 6] ~= '1'
        elseif value and ARGV[base + 5] ~= 'look' then
            writes[#writes + 1] = {key, value, ttl}
        end
    end
end

-- Ask those that do not count again, about a request that is not counted.
for base = 2, #ARGV, ARGS do
    local at = 2 + (base - 2) / ARGS * RESULTS
    if reply[at] == 1 and (refused or ARGV[base + 5] == 'look') then
        local _, remaining, reset = check(base, KEYS[tonumber(ARGV[base + place])], 0)
        reply[at + 1], reply[at + 2] = remaining, reset
    end
end

if not refused then
    for _, write in ipairs(writes) do
        if write[3] then
            redis.call('SET', write[1], write[2], 'PX', write[3])
        else
            redis.call('INCRBY', write[1], write[2])
        end
    end
end
return reply

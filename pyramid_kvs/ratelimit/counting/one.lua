-- Counts a request against one limit, with session.lua and `count`, a strategy, before it.
--
-- KEYS: the session, if there is one to load, and the counter if the session is known; always
-- last, the counter if it is not. Without the last one, an unknown session is not limited.
-- ARGV: the session's new ttl, limit, window in ms, cost, and the burst for gcra.
-- Reply: the session's data, allowed (-1: not limited), remaining, reset in ms, retry in ms.

local key = KEYS[session and 2 or ARGV[1] == '-' and 1 or 3]
if not key then return {session, -1, 0, 0, 0} end
local allowed, remaining, reset, retry, value, ttl = count(
    key, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] and tonumber(ARGV[5]))
if ttl then
    redis.call('SET', key, value, 'PX', ttl)
elseif value then
    redis.call('INCRBY', key, value)
end
return {session, allowed, remaining, reset, retry}

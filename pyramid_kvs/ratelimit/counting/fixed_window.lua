-- The state is a decimal number, as in 1.0. The window ends when the key expires.
local function fixed_window(key, limit, window, cost)
    local state = redis.call('GET', key)
    if not state or #state > 15 or not string.match(state, '^%d+$') then
        if cost > limit then return 0, limit, window, window end
        return 1, math.min(limit, limit - cost), window, 0, math.max(0, cost), window
    end
    local count, left = tonumber(state), redis.call('PTTL', key)
    if left < 0 or left > window then
        left = window
        redis.call('PEXPIRE', key, window)
    end
    local used = math.max(0, count + cost)
    if cost > 0 and used > limit then return 0, math.max(0, limit - count), left, left end
    return 1, math.max(0, limit - used), left, 0, used - count
end

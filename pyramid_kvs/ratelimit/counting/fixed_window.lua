-- The state is a decimal number, as in 1.0. The window ends when the key expires.
local function fixed_window(key, limit, window, cost, burst, force, age)
    local max, state, left = math.max, redis.call('GET', key), 0
    if state and #state <= 15 and string.match(state, '^%d+$') then
        left = redis.call('PTTL', key)
    end
    if left == 0 then -- no window, or the end of one
        if cost > limit and not force then return 0, limit, window, window end
        if cost <= 0 then return 1, limit, window, 0 end
        return 1, max(0, limit - cost), window, 0, cost, window
    end
    if left < 0 or left > window then
        left = window
        redis.call('PEXPIRE', key, window)
    end
    local count = tonumber(state)
    if cost < 0 and age and age > window - left then cost = 0 end
    if cost > 0 and count + cost > limit and not force then
        return 0, max(0, limit - count), left, left
    end
    local used = max(0, math.min(1e15 - 1, count + cost))
    if used == count then return 1, max(0, limit - used), left, 0 end
    return 1, max(0, limit - used), left, 0, used - count
end

-- Returns the ms until at most `room` units count, or 0 if there is nothing to wait for.
local function until_room(room, window, elapsed, current, previous)
    if room < 0 or room >= current + previous then return 0 end
    if room >= current then
        local waited = math.floor((room - current) * window / previous)
        return math.max(0, window - elapsed - waited)
    end
    return window - elapsed + window - math.floor(room * window / current)
end

-- The state is s:start:current:previous.
local function sliding_window(key, limit, window, cost)
    local min, max, time = math.min, math.max, now()
    local start, current, previous =
        string.match(redis.call('GET', key) or '', '^s:(%d+):(%d+):(%d+)$')
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
    local used = current + math.ceil(previous * (window - elapsed) / window)
    if cost > 0 and used + cost > limit then
        local remaining = max(0, limit - used)
        local reset = until_room(limit - remaining - 1, window, elapsed, current, previous)
        local retry = until_room(limit - cost, window, elapsed, current, previous)
        return 0, remaining, reset, max(reset, retry)
    end
    current = max(0, current + cost)
    local remaining = max(0, min(limit, limit - used - cost))
    return 1, remaining,
        until_room(limit - remaining - 1, window, elapsed, current, previous), 0,
        string.format('s:%.0f:%.0f:%.0f', start, current, previous), 2 * window - elapsed
end

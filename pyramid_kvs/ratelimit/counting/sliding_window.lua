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
local function sliding_window(key, limit, window, cost, burst, force, age)
    local min, max, time = math.min, math.max, now()
    local start, current, previous =
        string.match(redis.call('GET', key) or '', '^s:(%d+):(%d+):(%d+)$')
    start, current, previous =
        tonumber(start or time), tonumber(current or 0), tonumber(previous or 0)
    local ahead = max(0, start - time)
    time = max(time, start)
    if time - start >= 2 * window then
        start, current, previous = time, 0, 0
    elseif time - start >= window then
        start, current, previous = start + window, 0, current
    end
    local elapsed = time - start
    local function used() return current + math.ceil(previous * (window - elapsed) / window) end
    local function wait(room)
        local found = until_room(room, window, elapsed, current, previous)
        return found > 0 and ahead + found or 0
    end
    if cost > 0 and used() + cost > limit and not force then
        local remaining = max(0, limit - used())
        local reset = max(1, wait(limit - remaining - 1))
        return 0, remaining, reset, max(reset, wait(limit - cost))
    end
    local counted, before = current, previous
    if cost > 0 or not age or age <= elapsed then
        current = max(0, min(1e15 - 1, current + cost))
    elseif age <= elapsed + window then
        previous = max(0, previous + cost)
    end
    local remaining = max(0, limit - used())
    local reset = wait(limit - remaining - 1)
    if current == counted and previous == before then return 1, remaining, reset, 0 end
    return 1, remaining, reset, 0,
        string.format('s:%.0f:%.0f:%.0f', start, current, previous), 2 * window - elapsed
end

-- Returns the ms until the level is lower by some units, up to the rounding error.
local function drained(units, unit)
    return math.min(1e15 - 1, math.max(0, math.ceil((units - 1e-6) * unit)))
end

-- The state is g:level:time.
local function gcra(key, limit, window, cost, burst, force)
    local max, min, floor = math.max, math.min, math.floor
    local time, unit = now(), window / limit
    local level, at = string.match(redis.call('GET', key) or '', '^g:(%d[%d.e+-]*):(%d+)$')
    level, at = tonumber(level or 0), tonumber(at)
    if not (level and at and level < 1e15) then level, at = 0, time end
    local ahead = max(0, at - time)
    time = max(time, at)
    level = max(0, level - (time - at) * limit / window)
    cost = max(cost, -level)
    local used = level + cost
    if cost > 0 and used > burst + 1e-6 and not force then
        local room = max(0, floor(burst - level + 1e-6))
        local reset = max(1, drained(level - (burst - room - 1), unit))
        return 0, min(limit, room), ahead + reset, ahead + max(reset, drained(used - burst, unit))
    end
    used = min(1e15 - 1, used)
    local room = max(0, floor(burst - used + 1e-6))
    local reset = drained(used - max(0, burst - room - 1), unit)
    if room >= limit then reset = 0 elseif reset > 0 then reset = ahead + reset end
    if cost == 0 then return 1, min(limit, room), reset, 0 end
    return 1, min(limit, room), reset, 0,
        string.format('g:%.17g:%.0f', used, time), max(1, drained(used, unit))
end

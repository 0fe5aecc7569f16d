local function up(milliseconds)
    return math.max(0, math.ceil(milliseconds - 1e-6))
end

-- The state is g:level:time.
local function gcra(key, limit, window, cost, burst)
    local max, floor = math.max, math.floor
    local time, unit = now(), window / limit
    local level, at = string.match(redis.call('GET', key) or '', '^g:(%d[%d.e+-]*):(%d+)$')
    level, at = tonumber(level or 0), tonumber(at)
    if not (level and at and level < 1e15) then level, at = 0, time end
    level = max(0, level - max(0, time - at) * limit / window)
    local used = max(0, level + cost)
    if cost > 0 and used > burst + 1e-6 then
        local remaining = max(0, floor(burst - level + 1e-6))
        local reset = up((level - (burst - remaining - 1)) * unit)
        return 0, remaining, reset, max(reset, up((used - burst) * unit))
    end
    local remaining = max(0, floor(burst - used + 1e-6))
    return 1, remaining, up((used - max(0, burst - remaining - 1)) * unit), 0,
        string.format('g:%.17g:%.0f', used, time), max(1, math.ceil(used * unit))
end

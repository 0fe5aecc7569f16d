-- Loads the session, which is KEYS[1]. ARGV[1] is its new ttl in ms: '' leaves the ttl alone, and
-- '-' means that there is no session to load.

local session = false
if ARGV[1] == '' then
    session = redis.call('GET', KEYS[1])
elseif ARGV[1] ~= '-' then
    session = redis.call('GETEX', KEYS[1], 'PX', ARGV[1])
end

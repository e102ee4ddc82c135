-- KEYS 1 leases, 2 facts; ARGV 1 incarnation, 2 its facts
-- -> who has a lease, with its facts: incarnation, facts, incarnation, facts ...
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local known = redis.call('HGETALL', KEYS[2])
local out = {}
local function ends(incarnation) return tonumber(redis.call('ZSCORE', KEYS[1], incarnation) or nil) end
local own = ends(ARGV[1])
if own and own > now then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  out[1], out[2] = ARGV[1], ARGV[2]
end
for i = 1, #known, 2 do
  local theirs = ends(known[i])
  if not theirs then
    -- Reaped, or lost with the tail of a server.
    redis.call('HDEL', KEYS[2], known[i])
  elseif theirs > now and known[i] ~= ARGV[1] then
    out[#out + 1], out[#out + 2] = known[i], known[i + 1]
  end
end
return out

-- KEYS 1 leases; ARGV 1 `1` to end it now, else incarnations: those without a lease are listed as ended
-- -> of each `1` when its lease has not ended
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local out = {}
for i = 2, #ARGV do
  local ends = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or nil)
  local alive = ends and ends > now and ARGV[1] ~= '1'
  if not ends or (ends > now and not alive) then redis.call('ZADD', KEYS[1], 0, ARGV[i]) end
  out[i - 1] = alive and '1' or '0'
end
return out

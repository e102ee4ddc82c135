-- KEYS of each outbox: list, state (see outbox.lua) -> of each: records that wait or were lost, bytes
local out = {}
for i = 1, #KEYS, 2 do
  local state = redis.call('HMGET', KEYS[i + 1], 'b', 'c')
  out[i] = redis.call('LLEN', KEYS[i]) + (state[2] and 1 or 0)
  out[i + 1] = tonumber(state[1] or '0')
end
return out

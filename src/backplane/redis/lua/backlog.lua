-- KEYS of each outbox: list, state (see outbox.lua) -> of each: records that wait or were lost, bytes
local out = {}
for i = 1, #KEYS, 2 do
  local state, length = redis.pcall('HMGET', KEYS[i + 1], 'b', 'c'), redis.pcall('LLEN', KEYS[i])
  -- Written by somebody else: the other hooks are told all the same.
  if state.err or type(length) ~= 'number' then state, length = {}, 0 end
  out[i] = length + (state[2] and 1 or 0)
  out[i + 1] = tonumber(state[1] or '0') or 0
end
return out

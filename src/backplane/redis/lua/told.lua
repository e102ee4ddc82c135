-- What was told is forgotten, by who has the outbox in hand.
--
-- KEYS 1 list, 2 state (see outbox.lua); ARGV 1 lease, 2 number of the last record that was told, 3 `1` to let go of it
-- -> `1`, or `0` where another has it by now
local state = redis.call('HMGET', KEYS[2], 'l', 'a', 'b', 'c')
if state[1] ~= ARGV[1] then return 0 end
local off, bytes = tonumber(state[2] or '0'), tonumber(state[3] or '0')
local count = tonumber(ARGV[2]) - off
if count > 0 then
  for _, record in ipairs(redis.call('LPOP', KEYS[1], count) or {}) do
    bytes = bytes - #record
    off = off + 1
  end
end
if redis.call('LLEN', KEYS[1]) == 0 and not state[4] then
  redis.call('DEL', KEYS[2])
else
  redis.call('HSET', KEYS[2], 'a', string.format('%.0f', off), 'b', string.format('%.0f', bytes))
  if ARGV[3] == '1' then redis.call('HDEL', KEYS[2], 'h', 'l', 't') end
end
return 1

-- Reads the oldest of what waits in an outbox, and takes it in hand.
--
-- KEYS 1 list, 2 state (see outbox.lua); ARGV 1 who asks, 2 a word that was never used before, 3 ms that it may be held,
-- 4 most records, 5 most bytes, 6 from whom it may be taken
-- -> `busy`, who has it; or lease, number of the first record, records; or nothing, if nothing waits
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local state = redis.call('HMGET', KEYS[2], 'h', 't', 'a', 'b', 'c', 's', 'u')
local holder = state[1]
if holder and holder ~= ARGV[1] and holder ~= ARGV[6] and tonumber(state[2] or '0') > now then return {'busy', holder} end
local length = redis.call('LLEN', KEYS[1])
local lost = tonumber(state[5] or '0')
if length == 0 and lost == 0 then return {} end
-- Redis that is full lets a script write whose first write needs no memory: else nobody could empty it.
redis.call('HDEL', KEYS[2], 'l')
-- A new one each time: after a failover numbers may count other records, and whoever was told of them has an older word.
redis.call('HSET', KEYS[2], 'h', ARGV[1], 'l', ARGV[2], 't', string.format('%.0f', now + tonumber(ARGV[3])))
if lost > 0 and length < tonumber(ARGV[4]) then
  -- Nothing follows that would say so.
  local record = 'x e-' .. ARGV[2] .. ' ' .. now .. ' ' .. string.format('%.0f', lost) .. ' ' .. state[6] .. ' ' .. state[7]
  redis.call('RPUSH', KEYS[1], record)
  redis.call('HSET', KEYS[2], 'b', string.format('%.0f', tonumber(state[4] or '0') + #record))
  redis.call('HDEL', KEYS[2], 'c', 's', 'u')
  length = length + 1
end
local out, bytes = {ARGV[2], string.format('%.0f', tonumber(state[3] or '0') + 1)}, 0
for from = 0, math.min(length, tonumber(ARGV[4])) - 1, 32 do
  local last = math.min(from + 32, tonumber(ARGV[4])) - 1
  for _, record in ipairs(redis.call('LRANGE', KEYS[1], from, last)) do
    bytes = bytes + #record
    if bytes > tonumber(ARGV[5]) and #out > 2 then return out end
    out[#out + 1] = record
  end
end
return out

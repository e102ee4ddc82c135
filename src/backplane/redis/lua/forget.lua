-- Drops revocations of which no token can be alive any more.
--
-- KEYS 1 revocations; ARGV fields -> how many were dropped
local now, dropped = tonumber(redis.call('TIME')[1]), 0
for _, field in ipairs(ARGV) do
  local forget = string.match(redis.call('HGET', KEYS[1], field) or '', '^%d+ (%d+)$')
  if forget and tonumber(forget) < now then dropped = dropped + redis.call('HDEL', KEYS[1], field) end
end
return dropped

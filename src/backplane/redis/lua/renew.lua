-- KEYS 1 leases; ARGV 1 incarnation, 2 `1` for a new one, 3 lease in ms
-- -> which server this is, `1` when the lease is held, who has a lease, whose has ended
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ends = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
local alive = (ends and ends > now) or (not ends and ARGV[2] == '1')
if alive then
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
elseif not ends then
  -- Reaped, or lost with the tail of a server: whatever it still holds somewhere must not stay for ever.
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
end
local info = redis.pcall('INFO', 'replication')
local server = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
return {
  server, alive and '1' or '0',
  redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf'),
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now),
}

-- KEYS 1 tombstone, 2 held, 3 incarnations of the partition; ARGV 1 life of the tombstone in ms, 2 incarnation
-- -> whether the incarnation holds something here
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
local holds = redis.call('EXISTS', KEYS[2])
if holds == 0 then redis.call('SREM', KEYS[3], ARGV[2]) end
return holds

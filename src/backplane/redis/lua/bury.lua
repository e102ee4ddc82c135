-- KEYS 1 tombstone, 2 held, 3 incarnations of the partition, 4 sessions, if hooks are told of their ends
-- ARGV 1 life of the tombstone in ms, 2 incarnation -> whether the incarnation holds something here
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
local holds = redis.call('EXISTS', KEYS[2])
if holds == 0 then redis.call('SREM', KEYS[3], ARGV[2]) end
if holds == 0 and KEYS[4] then holds = redis.call('EXISTS', KEYS[4]) end
return holds

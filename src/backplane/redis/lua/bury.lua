-- KEYS 1 tombstone, 2 held; ARGV 1 life of the tombstone in ms -> whether the incarnation holds something here
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
return redis.call('EXISTS', KEYS[2])

-- KEYS 1 leases, 2 facts; ARGV 1 incarnation that holds nothing any more
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])

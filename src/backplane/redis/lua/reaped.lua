-- KEYS 1 leases; ARGV 1 incarnation that holds nothing any more
return redis.call('ZREM', KEYS[1], ARGV[1])

-- KEYS 1 name; ARGV 1 value, 2 life in ms -> whether it was free
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0

-- KEYS 1 name -> its value, gone now
return redis.call('GETDEL', KEYS[1])

-- KEYS 1 name -> its value, which stays
return redis.call('GET', KEYS[1])

-- KEYS 1 meta, 2 users of a room -> presence version, then of each user: name, `incarnation,… JSON`
return {redis.call('HGET', KEYS[1], 'v') or '0', redis.call('HGETALL', KEYS[2])}

-- KEYS 1 revocations; ARGV 1 cursor -> which server this is, its time in s, next cursor, of each: field, times
local info = redis.pcall('INFO', 'replication')
local server = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 256)
return {server, redis.call('TIME')[1], page[1], page[2]}

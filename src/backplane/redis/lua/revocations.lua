-- KEYS 1 revocations; ARGV 1 cursor -> which server this is, next cursor, of each: field, times
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 256)
return {server, page[1], page[2]}

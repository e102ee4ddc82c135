-- One entry of the control log, which names the one before it.
--
-- KEYS 1 control log; ARGV 1 length of the log, 2 text (none: only looks), 3 ms: not if the newest entry is younger
-- -> which server this is, the newest entry
local info = redis.pcall('INFO', 'replication')
local server = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local newest = last and last[1] or '0-0'
if #ARGV < 2 then return {server, newest} end
if last and tonumber(ARGV[3]) > 0 then
  local clock = redis.call('TIME')
  local age = clock[1] * 1000 + math.floor(clock[2] / 1000) - tonumber(string.match(newest, '^%d+'))
  if age >= 0 and age < tonumber(ARGV[3]) then return {server, newest} end
end
return {server, redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'f', newest, 'c', ARGV[2])}

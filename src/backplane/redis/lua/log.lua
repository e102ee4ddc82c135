-- One entry of the control log, which names the one before it.
--
-- KEYS 1 control log; ARGV 1 length of the log, 2 text, 3 ms: not if the newest entry is younger (0: always)
-- -> the newest entry's id
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local follows = last and last[1] or '0-0'
if last and tonumber(ARGV[3]) > 0 then
  local clock = redis.call('TIME')
  local age = clock[1] * 1000 + math.floor(clock[2] / 1000) - tonumber(string.match(follows, '^%d+'))
  if age >= 0 and age < tonumber(ARGV[3]) then return follows end
end
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'f', follows, 'c', ARGV[2])

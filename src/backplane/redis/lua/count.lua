-- Notes how many connections of a user an incarnation has, unless that were too many together with those of the others.
--
-- KEYS 1 leases, 2 counts of the user; ARGV 1 incarnation, 2 connections, 3 version, 4 most, 5 life in ms
-- -> `1` noted, `0` too many, `2` the incarnation has no lease
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function lives(incarnation)
  local ends = tonumber(redis.call('ZSCORE', KEYS[1], incarnation) or nil)
  return ends and ends > now
end
if not lives(ARGV[1]) then return '2' end
local sum, own = tonumber(ARGV[2]), nil
local known = redis.call('HGETALL', KEYS[2])
for i = 1, #known, 2 do
  local count, version = string.match(known[i + 1], '^(%d+) (%d+)$')
  if known[i] == ARGV[1] then
    own = tonumber(version)
  elseif lives(known[i]) then
    sum = sum + (tonumber(count) or 0)
  else
    redis.call('HDEL', KEYS[2], known[i])
  end
end
if sum > tonumber(ARGV[4]) then return '0' end
-- What was said later may have come sooner.
if not own or own < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return '1'

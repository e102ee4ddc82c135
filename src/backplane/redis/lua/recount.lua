-- Notes how many connections of users an incarnation has, whatever that comes to.
--
-- KEYS 1 leases, then counts of a user each; ARGV 1 incarnation, 2 life in ms, 3 life of a count of none in ms, then
-- connections and version for each user -> `1` noted, `2` the incarnation has no lease
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ends = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
if not ends or ends <= now then return '2' end
for i = 2, #KEYS do
  local connections, version = ARGV[2 * i], ARGV[2 * i + 1]
  local own = string.match(redis.call('HGET', KEYS[i], ARGV[1]) or '', ' (%d+)$')
  if not own or tonumber(own) < tonumber(version) then
    redis.call('HSET', KEYS[i], ARGV[1], connections .. ' ' .. version)
    local none = true
    for _, count in ipairs(redis.call('HVALS', KEYS[i])) do
      none = none and string.sub(count, 1, 2) == '0 '
    end
    -- A count of none stays a little: a word that was said before it may still be on its way.
    redis.call('PEXPIRE', KEYS[i], none and ARGV[3] or ARGV[2])
  end
end
return '1'

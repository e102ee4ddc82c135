-- Keeps the later of each time, and tells of what is new.
--
-- KEYS 1 revocations (hash `kind:value` -> `issued_before forget_after`), 2 control log
-- ARGV 1 `1` to tell of what is known already too, 2 length of the log, then of each: field, issued_before, forget_after
local log, told = {}, 0
local function later(a, b)
  if b and tonumber(b) > tonumber(a) then return b end
  return a
end

local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local follows = last and last[1] or '0-0'
for i = 3, #ARGV, 3 do
  local field = ARGV[i]
  local old = redis.call('HGET', KEYS[1], field)
  local before, forget = string.match(old or '', '^(%d+) (%d+)$')
  local new = later(ARGV[i + 1], before) .. ' ' .. later(ARGV[i + 2], forget)
  if new ~= old then redis.call('HSET', KEYS[1], field, new) end
  if new ~= old or ARGV[1] == '1' then
    follows = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'f', follows, 'c', 'r ' .. new .. ' ' .. field)
    told = told + 1
  end
end
return told

-- KEYS meta, log. ARGV seq, limit, age (ms) that is kept, bytes of an answer.
-- Returns lineage, head, first kept seq, then entries after seq, none unless seq + 1 is kept. No room: nothing.
local t = redis.call('TIME')
local oldest = t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(ARGV[3])
local m = redis.call('HMGET', KEYS[1], 'e', 's', 't')
if not m[1] then return {} end
local head, from, limit = tonumber(m[2]), tonumber(ARGV[1]), tonumber(ARGV[2])
if not head or not m[3] then return redis.error_reply('WRONGTYPE not a room') end
local length = redis.call('LLEN', KEYS[2])
local function is_old(i)
  return tonumber(string.match(redis.call('LINDEX', KEYS[2], i), '^%S+ %d+ (%d+)') or '0') < oldest
end
-- An idle room is trimmed by nobody: what is too old is passed over here.
local old = 0
if length > 0 and is_old(0) then
  local stop = length
  while old < stop do
    local middle = math.floor((old + stop) / 2)
    if is_old(middle) then old = middle + 1 else stop = middle end
  end
end
local begin = head - length + 1
local out = {m[3], head, begin + old}
if from >= head or from + 1 < begin + old then return out end
local i, bytes = from + 1 - begin, 0
for _, entry in ipairs(redis.call('LRANGE', KEYS[2], i, i + limit - 1)) do
  bytes = bytes + #entry
  if bytes > tonumber(ARGV[4]) and #out > 3 then break end
  out[#out + 1] = entry
end
return out

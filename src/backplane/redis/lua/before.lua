-- KEYS meta, log. ARGV seq, limit, age (ms) that is kept, bytes of an answer.
-- Returns whether older ones are kept, then the newest entries below seq, newest first. No room: nothing.
local t = redis.call('TIME')
local oldest = t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(ARGV[3])
local head = tonumber(redis.call('HGET', KEYS[1], 's') or '')
if not head then return {} end
local length = redis.call('LLEN', KEYS[2])
local begin = head - length + 1
local last = math.min(tonumber(ARGV[1]) - 1, head) - begin
local out, bytes = {0}, 0
if last < 0 then return out end
local from = math.max(last - tonumber(ARGV[2]) + 1, 0)
local entries = redis.call('LRANGE', KEYS[2], from, last)
for i = #entries, 1, -1 do
  local entry = entries[i]
  if tonumber(string.match(entry, '^%S+ %d+ (%d+)') or '0') < oldest then return out end
  bytes = bytes + #entry
  if bytes > tonumber(ARGV[4]) and #out > 1 then
    out[1] = 1
    return out
  end
  out[#out + 1] = entry
end
if from > 0 then
  local next = redis.call('LINDEX', KEYS[2], from - 1)
  if tonumber(string.match(next, '^%S+ %d+ (%d+)') or '0') >= oldest then out[1] = 1 end
end
return out

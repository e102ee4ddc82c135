-- KEYS metas. ARGV life (ms) of a room that was written in, and of one that never was.
-- Returns per room {epoch, head, presence version}, or false. Rooms that somebody asks after live on.
local out = {}
for i, key in ipairs(KEYS) do
  local m = redis.pcall('HMGET', key, 'e', 's', 'v')
  out[i] = false
  if m[1] and m[2] then
    out[i] = {m[1], m[2], m[3] or '0'}
    local life = tonumber(m[2] == '0' and ARGV[2] or ARGV[1])
    if redis.call('PTTL', key) < life / 2 then redis.call('PEXPIRE', key, life) end
  end
end
return out

-- KEYS meta, log. ARGV fresh epoch, life (ms) of a room that was written in, and of one that never was.
-- Returns lineage, head. A room that nobody has written in has an epoch too, so that `list` can name it.
local m = redis.call('HMGET', KEYS[1], 'e', 's', 't')
local s = tonumber(m[2] or '0')
if not s or (m[1] and not m[3]) then return redis.error_reply('WRONGTYPE not a room') end
if m[1] then
  local life = tonumber(s > 0 and ARGV[2] or ARGV[3])
  if redis.call('PTTL', KEYS[1]) < life / 2 then redis.call('PEXPIRE', KEYS[1], life) end
  return {m[3], s}
end
local info = redis.pcall('INFO', 'replication')
local line = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
local lineage = ARGV[1] .. ':1'
redis.call('HSET', KEYS[1], 'e', ARGV[1], 's', '0', 'r', line, 't', lineage, 'b', '0')
redis.call('DEL', KEYS[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {lineage, 0}

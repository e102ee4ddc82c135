-- KEYS meta, log, dedupe keys, then per outbox: list, state (see outbox.lua). ARGV channel, fresh epoch, messages, bytes and
-- age (ms) that are kept, key window (ms), not after (ms), life of the meta hash (ms), how many outboxes, then per outbox:
-- most records, most bytes; if there are any: node and room, sized; then per message: place of its dedupe key in KEYS
-- (0: none), envelope, and if there are outboxes its key as records have it.
-- Returns the time and per message 'new <epoch> <seq>' or 'again <epoch> <seq>'.
-- Everything is read and checked before the first write: an error leaves nothing half done.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if now > tonumber(ARGV[7]) then return redis.error_reply('LATE the deadline has passed') end
local info = redis.pcall('INFO', 'replication')
local line = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
local m = redis.call('HMGET', KEYS[1], 'e', 's', 't', 'r', 'b')
local e, s, lineage, bytes = m[1], tonumber(m[2] or '0'), m[3], tonumber(m[5] or '0')
if not s or not bytes or (e and not lineage) then return redis.error_reply('WRONGTYPE not a room') end
local kept = redis.call('LLEN', KEYS[2])
local taken, fresh = {}, 0
local boxes = tonumber(ARGV[9])
local begin, stride = 10, 2
if boxes > 0 then begin, stride = 11 + 2 * boxes, 3 end
for i = 3, #KEYS - 2 * boxes do taken[i] = redis.call('GET', KEYS[i]) end
for a = begin, #ARGV, stride do
  if not taken[tonumber(ARGV[a])] then fresh = fresh + 1 end
end
if not e then
  e, s, lineage = ARGV[2], 0, ARGV[2] .. ':1'
  if fresh > 0 and kept > 0 then redis.call('DEL', KEYS[2]); kept = 0 end
elseif m[4] ~= line and fresh > 0 and not naive then
  -- Another server, or the same after a restart: what it lost of the old epoch is above where this one begins.
  e = ARGV[2]
  lineage = lineage .. ',' .. e .. ':' .. string.format('%.0f', s + 1)
  local _, n = string.gsub(lineage, ',', '')
  if n >= 16 then lineage = string.match(lineage, '^[^,]*,(.*)$') end
end
if kept == 0 then bytes = 0 end
local out, told, records, first = {now}, {}, {}, string.format('%.0f', s + 1)
for a = begin, #ARGV, stride do
  local k = tonumber(ARGV[a])
  if taken[k] then
    out[#out + 1] = 'again ' .. taken[k]
    -- A write, so that a WAIT after it covers the message too.
    local left = redis.call('PTTL', KEYS[k])
    if left > 0 then redis.call('PEXPIRE', KEYS[k], left) end
  else
    s = s + 1
    local seq = string.format('%.0f', s)
    local entry = e .. ' ' .. seq .. ' ' .. now .. ' ' .. ARGV[a + 1]
    redis.call('RPUSH', KEYS[2], entry) -- OOM refuses here, whole
    bytes = bytes + #entry
    redis.call('HSET', KEYS[1], 'e', e, 's', seq, 'r', line, 't', lineage, 'b', bytes)
    if k > 0 then
      taken[k] = e .. ' ' .. seq
      redis.call('SET', KEYS[k], taken[k], 'PX', ARGV[6])
    end
    told[#told + 1] = #ARGV[a + 1] .. ' ' .. ARGV[a + 1]
    out[#out + 1] = 'new ' .. e .. ' ' .. seq
    if boxes > 0 then
      local head = 'c e-' .. ARGV[2] .. '-' .. #told .. ' ' .. now .. ' ' .. e .. ' ' .. seq .. ' '
      records[#records + 1] = head .. ARGV[begin - 1] .. ARGV[a + 2] .. ARGV[a + 1]
    end
  end
end
if #told > 0 then
  -- One wake-up for all, so that nodes hand them on together. Stored is stored: who may not publish is found out by the
  -- audit of others.
  redis.pcall('SPUBLISH', ARGV[1], 'b ' .. e .. ' ' .. first .. ' ' .. now .. ' ' .. table.concat(told))
end
for box = 1, boxes do
  local list = #KEYS - 2 * boxes + 2 * box - 1
  put({KEYS[list], KEYS[list + 1], tonumber(ARGV[8 + 2 * box]), tonumber(ARGV[9 + 2 * box])}, records, ARGV[2], now)
end
local before = bytes
local n = redis.call('LLEN', KEYS[2])
local over = math.min(n - tonumber(ARGV[3]), 512)
if over > 0 then
  for _, entry in ipairs(redis.call('LPOP', KEYS[2], over)) do bytes = bytes - #entry end
  n = n - over
end
for _ = 1, 256 do
  if n == 0 then break end
  local first = redis.call('LINDEX', KEYS[2], 0)
  local time = tonumber(string.match(first, '^%S+ %d+ (%d+)') or '0')
  if bytes <= tonumber(ARGV[4]) and time >= now - tonumber(ARGV[5]) then break end
  redis.call('LPOP', KEYS[2])
  bytes = bytes - #first
  n = n - 1
end
if n == 0 then bytes = 0 end
if bytes ~= before then redis.call('HSET', KEYS[1], 'b', bytes) end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[8])
return out

-- Tells of the ends of some sessions of a buried incarnation.
--
-- KEYS 1 tombstone, 2 its sessions (see sessions.lua), then of each outbox: list, state
-- ARGV 1 a word that was never used before, 2 how many sessions, then of each outbox its most records and bytes
-- -> how many sessions are left, or `UNBURIED`
if redis.call('EXISTS', KEYS[1]) == 0 then return 'UNBURIED' end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local word, millis, records = ARGV[1], string.format('%.0f', now), {}
local sessions = redis.call('HRANDFIELD', KEYS[2], ARGV[2], 'WITHVALUES')
for i = 1, #sessions, 2 do
  local since, members = string.match(sessions[i + 1], '^(%d+) (.*)$')
  redis.call('HDEL', KEYS[2], sessions[i])
  if since then
    local duration = string.format('%.0f', math.max(0, now - tonumber(since)))
    records[#records + 1] = 's e-' .. word .. '-' .. i .. ' ' .. millis .. ' ' .. members .. ',"duration_ms":' .. duration
  end
end
for at = 3, #KEYS, 2 do
  put({KEYS[at], KEYS[at + 1], tonumber(ARGV[at]), tonumber(ARGV[at + 1])}, records, word, millis)
end
return redis.call('HLEN', KEYS[2])

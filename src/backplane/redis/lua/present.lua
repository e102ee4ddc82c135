-- Moves users between one incarnation and none, in order; tells the room of those who thereby come or go as a whole.
--
-- KEYS  1 tombstone of the incarnation, 2 what it holds (hash), 3 incarnations that hold something here (set),
--       then of each room: meta (hash), users (hash), then of each outbox: list, state (see outbox.lua)
-- ARGV  1 incarnation, 2 number of the call (0: the incarnation is being reaped), 3 what its channels begin with,
--       4 how many rooms, 5 how many outboxes, then the rooms' names; if there are outboxes: a word that was never used before,
--       of each outbox its most records and bytes, of each room the outboxes of joins and of lefts (bits), and node and room
--       as records have them; then of each change: index of its room, `+` or `-`, user, JSON (of `+`)
--
-- What could fail is read before the first write, so that nothing is left half done; and the first write
-- of a leave only frees memory, so that users can leave a full server (a later write of a script is never refused).
local inc, number, rooms, boxes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
-- Where names, the word and what is told of rooms begin, less one; and where the changes do.
local names, word = 5, 6 + rooms
local wishes = word + 2 * boxes
local begin = boxes > 0 and wishes + 3 * rooms + 1 or word
local buried = redis.call('EXISTS', KEYS[1]) == 1
local last = redis.call('HGET', KEYS[2], '')
if number > 0 then
  if buried then return 'FENCED' end
  -- A call that was given up may still lie in a socket, behind a newer one that came another way.
  if last and tonumber(last) > number then return 'STALE' end
elseif not buried then
  return 'UNBURIED'
end

local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local millis = string.format('%.0f', math.floor(micros / 1000))
if number > 0 and not last then redis.call('SISMEMBER', KEYS[3], inc) end

-- Presence versions by room; false for a room whose records are none of ours: it must not keep the others from theirs.
local versions, raised = {}, {}
for at = 1, rooms do
  local version = redis.pcall('HGET', KEYS[2 + 2 * at], 'v')
  local kind = redis.call('TYPE', KEYS[3 + 2 * at]).ok
  versions[at] = false
  if type(version) ~= 'table' and (kind == 'hash' or kind == 'none') then
    version = tonumber(version or 0)
    -- What is no number, or one that Lua cannot count on from, begins again.
    versions[at] = version and version >= 0 and version < 2 ^ 52 and version or 0
  end
end

-- Never a number twice, whatever was lost: a version is later than the one before and than the clock was then.
local function raise(at)
  local follows = versions[at]
  local version = math.max(follows + 1, micros)
  versions[at], raised[at] = version, true
  return string.format('%.0f %.0f', follows, version)
end

-- What hooks are told of it, by outbox.
local records = {}
for box = 1, boxes do records[box] = {} end
local events = 0
local function note(at, sign, json)
  local wish = wishes + 3 * at - 2
  local who = tonumber(ARGV[sign == '+' and wish or wish + 1])
  if who == 0 then return end
  events = events + 1
  local record = (sign == '+' and 'j' or 'l') .. ' e-' .. ARGV[word] .. '-' .. events .. ' ' .. millis .. ' ' .. ARGV[wish + 2] .. json
  for box = 1, boxes do
    if bit.band(who, bit.lshift(1, box - 1)) ~= 0 then table.insert(records[box], record) end
  end
end

local function tell(at, sign, user, json)
  local event = 'p ' .. raise(at) .. ' ' .. sign .. ' ' .. millis .. ' ' .. #user .. ' ' .. user .. json
  -- Done is done: who may not publish is found out by the comparison of versions.
  redis.pcall('SPUBLISH', ARGV[3] .. ARGV[names + at], event)
  if boxes > 0 then note(at, sign, json) end
end

-- The incarnations in front of a user's JSON, between commas, without this one; and whether it was there.
local function others(list)
  list = ',' .. list .. ','
  local from, to = string.find(list, ',' .. inc .. ',', 1, true)
  if not from then return list, false end
  return string.sub(list, 1, from) .. string.sub(list, to + 1), true
end

local came, went, skipped = 0, 0, 0
local function move(at, sign, user, json)
  local users = KEYS[3 + 2 * at]
  local place = ARGV[names + at] .. '\0' .. user
  local held = redis.call('HEXISTS', KEYS[2], place) == 1
  local known = redis.call('HGET', users, user)
  local list, old = '', ''
  if known then list, old = string.match(known, '^(%S*) (.*)$') end
  local rest, mine = others(list or '')
  if sign == '+' then
    if not held then redis.call('HSET', KEYS[2], place, '') end
    if not mine or old ~= json then
      redis.call('HSET', users, user, (rest == ',,' and inc or string.sub(rest, 2) .. inc) .. ' ' .. json)
    end
    if not known then
      came = came + 1
      tell(at, '+', user, json)
    end
  else
    if held then redis.call('HDEL', KEYS[2], place) end
    if mine and (rest == ',' or rest == ',,') then
      redis.call('HDEL', users, user)
      went = went + 1
      tell(at, '-', user, old)
    elseif mine then
      redis.call('HSET', users, user, string.sub(rest, 2, -2) .. ' ' .. old)
    end
  end
end

for i = begin, #ARGV, 4 do
  local at = tonumber(ARGV[i])
  if versions[at] then
    move(at, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  else
    skipped = skipped + 1
    if number == 0 then redis.call('HDEL', KEYS[2], ARGV[names + at] .. '\0' .. ARGV[i + 2]) end
  end
end

for box = 1, boxes do
  local list, most = 2 + 2 * rooms + 2 * box, word + 2 * box - 1
  put({KEYS[list], KEYS[list + 1], tonumber(ARGV[most]), tonumber(ARGV[most + 1])}, records[box], ARGV[word], millis)
end

for at in pairs(raised) do
  local meta = KEYS[2 + 2 * at]
  redis.call('HSET', meta, 'v', string.format('%.0f', versions[at]))
  -- A room that nobody has written in is kept for an hour after the last touch.
  if redis.call('PTTL', meta) < 3600000 then redis.call('PEXPIRE', meta, 3600000) end
end
if number > 0 then
  if last ~= ARGV[2] then redis.call('HSET', KEYS[2], '', ARGV[2]) end
  if not last then redis.call('SADD', KEYS[3], inc) end
elseif redis.call('HLEN', KEYS[2]) <= (last and 1 or 0) then
  redis.call('DEL', KEYS[2])
  redis.call('SREM', KEYS[3], inc)
end
return {came, went, skipped}

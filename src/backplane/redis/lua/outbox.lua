-- What hooks are to be told. An outbox is a list of records, oldest first, and a hash of its state: `a` records that were
-- taken off the list so far, `b` bytes in it, `c` records that found it full since the last one that did not, `s` and `u` when
-- the first and the last of these came, `h` who has it in hand, `l` under which lease, `t` ms at which that ends. Both are gone
-- while there is nothing to tell.
--
-- box: {list, state, most records, most bytes}; what does not fit is counted, and a record says so before the next that does.
local function put(box, records, word, now)
  if #records == 0 then return end
  local length = redis.pcall('LLEN', box[1])
  local state = redis.pcall('HMGET', box[2], 'b', 'c', 's')
  -- Written by somebody else: it must not keep messages from their rooms.
  if type(length) ~= 'number' or state.err then return end
  local bytes, lost, since = tonumber(state[1] or '0') or 0, tonumber(state[2] or '0') or 0, state[3] or now
  local kept, before = {}, lost
  for i, record in ipairs(records) do
    local fits = bytes + #record <= box[4] or length + #kept == 0
    if length + #kept < box[3] and fits then
      if lost > 0 then
        kept[#kept + 1] = 'x e-' .. word .. '-' .. i .. 'x ' .. now .. ' ' .. string.format('%.0f', lost) .. ' ' .. since .. ' ' .. now
        bytes = bytes + #kept[#kept]
        lost = 0
      end
      kept[#kept + 1] = record
      bytes = bytes + #record
    else
      if lost == 0 then since = now end
      lost = lost + 1
    end
  end
  if #kept > 0 then
    redis.pcall('RPUSH', box[1], unpack(kept))
    redis.pcall('PEXPIRE', box[1], 2592000000)
  end
  redis.pcall('HSET', box[2], 'b', string.format('%.0f', bytes))
  if lost > 0 then
    redis.pcall('HSET', box[2], 'c', string.format('%.0f', lost), 's', since, 'u', now)
  elseif before > 0 then
    redis.pcall('HDEL', box[2], 'c', 's', 'u')
  end
  redis.pcall('PEXPIRE', box[2], 2592000000)
end

local function sized(text) return #text .. ' ' .. text end


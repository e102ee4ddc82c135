-- Connections that begin and end, for hooks that are told so.
--
-- KEYS 1 tombstone of the incarnation, 2 its sessions (hash: session to `since end`), then of each outbox: list, state,
--      then the sessions of earlier incarnations of the same node
-- ARGV 1 a word that was never used before, 2 `1` if sessions are kept for who buries the incarnation, 3 how many outboxes,
--      then of each its most records and bytes, then of each change: `+`, `-` or `x` (neither),
--      session, outboxes (bits), record, since, end
-- -> `1`, or `FENCED`
if redis.call('EXISTS', KEYS[1]) == 1 then return 'FENCED' end
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local boxes, keep = tonumber(ARGV[3]), ARGV[2] == '1'
local told = {}
for box = 1, boxes do told[box] = {} end
for i = 4 + 2 * boxes, #ARGV, 6 do
  local session, is_new = ARGV[i + 1], true
  if keep and ARGV[i] == '+' then
    is_new = redis.call('HSET', KEYS[2], session, ARGV[i + 4] .. ' ' .. ARGV[i + 5]) == 1
  elseif keep and ARGV[i] == '-' then
    -- Its end is told also if no index has it: a failover may have lost that.
    redis.call('HDEL', KEYS[2], session)
  end
  if keep and ARGV[i] ~= 'x' then
    for before = 3 + 2 * boxes, #KEYS do
      -- It lives on under this incarnation: whoever buries that one must not tell of its end.
      if redis.call('HDEL', KEYS[before], session) == 1 and ARGV[i] == '+' then is_new = false end
    end
  end
  for box = 1, is_new and boxes or 0 do
    if bit.band(tonumber(ARGV[i + 2]), bit.lshift(1, box - 1)) ~= 0 then table.insert(told[box], ARGV[i + 3]) end
  end
end
for box = 1, boxes do
  if #told[box] > 0 then
    -- Redis that is full says so here, while nothing was written; `put` would lose it in silence.
    local full = redis.pcall('HINCRBY', KEYS[2 + 2 * box], 'b', 0)
    if type(full) == 'table' and full.err and string.find(full.err, 'OOM', 1, true) then return full end
  end
end
for box = 1, boxes do
  put({KEYS[1 + 2 * box], KEYS[2 + 2 * box], tonumber(ARGV[2 + 2 * box]), tonumber(ARGV[3 + 2 * box])}, told[box], ARGV[1], now)
end
return '1'

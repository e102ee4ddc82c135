-- A page of what an incarnation holds in a partition, and who else holds something there.
--
-- KEYS 1 held (hash), 2 incarnations of the partition (set); ARGV 1 cursor -> next cursor, places, incarnations
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 256)
local places = {}
for i = 1, #page[2], 2 do
  if page[2][i] ~= '' then places[#places + 1] = page[2][i] end
end
return {page[1], places, ARGV[1] == '0' and redis.call('SMEMBERS', KEYS[2]) or {}}

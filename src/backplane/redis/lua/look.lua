-- Some of what a buried incarnation still holds. Taken at random, so that two that reap at once rarely take the same.
--
-- KEYS 1 held; ARGV 1 how many at most -> places
local places = {}
for _, place in ipairs(redis.call('HRANDFIELD', KEYS[1], ARGV[1])) do
  if place ~= '' then places[#places + 1] = place end
end
return places

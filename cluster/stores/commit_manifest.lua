-- Makes a manifest the newest of its job, in one step: the only place where two runs of a job can meet.
--
-- Keys (all with the job's name as their hash tag, so that they share a slot of a Redis Cluster):
--   KEYS[1]    countersign:{<job>}:fence       string "<number> <owner>": who may commit
--   KEYS[2]    countersign:{<job>}:manifests   list, newest first; an element is "<number> <epoch> <manifest>"
--   KEYS[3]    countersign:{<job>}:named       set of the names of blobs that a manifest has named and nobody has freed
--   KEYS[4..]  countersign:{<job>}:blob:<name> string: the blobs that the manifest names
-- Arguments:
--   ARGV[1]    the committer's fence, as in KEYS[1]
--   ARGV[2]    the manifest's epoch
--   ARGV[3]    the manifest
--   ARGV[4]    how many checkpoints are kept: manifests of different epochs, as retained() in __init__.py chooses them
--   ARGV[5..]  the names of the blobs, in the order of KEYS[4..]
-- Returns {"committed"}, {"fenced"}, or {"missing", <name>}; only the first has changed anything.
--
-- To repeat a call changes nothing: an answer may get lost on its way, and the client asks again.

-- Equality, not order: a server that fell back to an earlier snapshot must not take one run for another.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'fenced'}
end

for i = 4, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    return {'missing', ARGV[i + 1]}
  end
end

local own = ARGV[1]:match('^%d+')
local number, epoch = (redis.call('LINDEX', KEYS[2], 0) or ''):match('^(%d+) (%d+) ')
local same_run = number == own
if same_run and tonumber(epoch) > tonumber(ARGV[2]) then
  return {'fenced'}  -- a command that was late on its way, after a later one of the same run
end

-- A blob lives for the grace period until a manifest names it; from here on, until it is freed.
for i = 4, #KEYS do
  redis.call('PERSIST', KEYS[i])
  redis.call('SADD', KEYS[3], ARGV[i + 1])
end

local kept, lowest = {own .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]}, tonumber(ARGV[2])
for _, entry in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  local earlier = tonumber(entry:match('^%d+ (%d+) '))
  if earlier < lowest and #kept < tonumber(ARGV[4]) then
    kept[#kept + 1], lowest = entry, earlier
  end
end
redis.call('DEL', KEYS[2])  -- first: after a write that needs no memory, a full server lets a script run to its end
redis.call('RPUSH', KEYS[2], unpack(kept))
return {'committed'}

-- Counts a request against all its limits, or against none, in one step.
--
-- KEYS  the clock, the processes, then one key for each limit.
-- ARGV  this process; the epoch it knows; a new epoch; the time it believes it is (ms); how long a
--       process counts as alive (ms); slots in a period. Then for each limit: length of a slot (ms);
--       amount of the limit; amount to count; number of reported counts; number of corrections;
--       each reported count as slot, process, amount and last use (ms); each correction of this
--       process's own counts as slot and amount.
-- Returns the time (ms), the epoch, the processes alive, 1 if everything was counted, and the hash
-- of each limit.
--
-- A limit is a hash of SLOT:PROCESS -> AMOUNT@LAST: what a process counted in a slot, and when it
-- last used the slot (ms). It counts for one period after that. The clock never goes back.

local process, epoch_known, epoch_new = ARGV[1], ARGV[2], ARGV[3]
local caller_ms, alive_ms, slots = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local FAR_MS = 1000  -- a clock that goes back further was set back and will not catch up soon
local KEPT_MS = 172800000  -- longer than any period

local function whole(number)
  return string.format('%.0f', number)
end

local function read(count)
  local amount, last = string.match(count, '^(%d+)@(%d+)$')
  return tonumber(amount), tonumber(last)
end

local function write(key, slot_ms, field, amount, last)
  redis.call('HSET', key, field, whole(amount) .. '@' .. whole(last))
  redis.call('PEXPIRE', key, slot_ms * (slots + 2))
end

local time = redis.call('TIME')
local wall = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'epoch', 'ahead', 'now')
local epoch, ahead, last = kept[1], tonumber(kept[2] or 0), tonumber(kept[3] or 0)
if not epoch then
  epoch, ahead, last = epoch_new, math.max(caller_ms - wall, 0), 0
end
local now = wall + ahead
if now < last then
  if last - now > FAR_MS then
    ahead = ahead + last - now
  end
  now = last
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'ahead', whole(ahead), 'now', whole(now))
redis.call('PEXPIRE', KEYS[1], KEPT_MS)

redis.call('ZADD', KEYS[2], whole(now), process)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now - alive_ms))
redis.call('PEXPIRE', KEYS[2], KEPT_MS)
local processes = redis.call('ZCARD', KEYS[2])
if epoch ~= epoch_known then
  return {now, epoch, processes, 0}
end

local limits, has_room, at = {}, true, 7
for index = 3, #KEYS do
  local key = KEYS[index]
  local slot_ms, limit, wanted = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local known, changes = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 5
  local expired = now - slot_ms * slots  -- what was last used then or before no longer counts
  for _ = 1, known do
    local field = whole(tonumber(ARGV[at])) .. ':' .. ARGV[at + 1]
    local amount, last = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    at = at + 4
    if last > expired then
      -- Never lower a count: an old report may arrive late.
      local stored = redis.call('HGET', key, field)
      local counted, counted_last = 0, 0
      if stored then
        counted, counted_last = read(stored)
      end
      if amount > counted or last > counted_last then
        write(key, slot_ms, field, math.max(amount, counted), math.max(last, counted_last))
      end
    end
  end
  for _ = 1, changes do
    local field = whole(tonumber(ARGV[at])) .. ':' .. process
    local stored = redis.call('HGET', key, field)
    if stored then
      local counted, last = read(stored)
      write(key, slot_ms, field, math.max(counted + tonumber(ARGV[at + 1]), 0), last)
    end
    at = at + 2
  end

  local counts, total = {}, 0
  local fields = redis.call('HGETALL', key)
  for number = 1, #fields, 2 do
    local amount, last = read(fields[number + 1])
    if last <= expired then
      redis.call('HDEL', key, fields[number])
    else
      counts[fields[number]] = fields[number + 1]
      total = total + amount
    end
  end
  if wanted > 0 and total + wanted > limit then
    has_room = false
  end
  limits[index] = {key, slot_ms, wanted, counts}
end

local reply = {now, epoch, processes, has_room and 1 or 0}
for index = 3, #KEYS do
  local key, slot_ms, wanted, counts = unpack(limits[index])
  if has_room and wanted > 0 then
    local field = whole(math.floor(now / slot_ms)) .. ':' .. process
    local amount = (counts[field] and read(counts[field]) or 0) + wanted
    write(key, slot_ms, field, amount, now)
    counts[field] = whole(amount) .. '@' .. whole(now)
  end
  local texts = {}
  for field, count in pairs(counts) do
    texts[#texts + 1] = field .. '=' .. count
  end
  reply[#reply + 1] = table.concat(texts, ',')
end
return reply

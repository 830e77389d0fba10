-- Counts all that a request asks of its meters, or nothing, in one step.
--
-- KEYS  the clock, the processes, then each meter.
-- ARGV  this process, the epoch it knows, a new epoch, what it takes the time to be, for how long a
--       process counts as alive (ms), slots to a length; then of each meter: ms of a slot, amount of
--       the limit, amount asked, how many counts it tells, of its own and of others that it heard of,
--       each as slot, process, amount and when last, and how many of its own it changes, each as slot
--       and amount.
-- Answers now (ms), epoch, processes alive, whether it was counted, and of each meter its hash.
--
-- A meter is a hash of SLOT:PROCESS -> AMOUNT@LAST: what a process counted in a slot, and when it
-- last did, in ms. It counts until that is a length old. The clock never goes back.

local process, epoch_known, epoch_new = ARGV[1], ARGV[2], ARGV[3]
local time_there, alive_ms, slots = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local FAR_MS = 1000  -- a clock that went back so far was set, and will not catch up
local KEPT_MS = 172800000  -- longer than any meter

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
  epoch, ahead, last = epoch_new, math.max(time_there - wall, 0), 0
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

local meters, room, at = {}, true, 7
for index = 3, #KEYS do
  local key = KEYS[index]
  local slot_ms, limit, asked = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local known, changes = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 5
  local left = now - slot_ms * slots  -- what was last used then, or before, counts no more
  for _ = 1, known do
    local field = whole(tonumber(ARGV[at])) .. ':' .. ARGV[at + 1]
    local amount, last = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    at = at + 4
    if last > left then
      -- Never less than what is known here: an old message may arrive late.
      local there = redis.call('HGET', key, field)
      local counted, counted_last = 0, 0
      if there then
        counted, counted_last = read(there)
      end
      if amount > counted or last > counted_last then
        write(key, slot_ms, field, math.max(amount, counted), math.max(last, counted_last))
      end
    end
  end
  for _ = 1, changes do
    local field = whole(tonumber(ARGV[at])) .. ':' .. process
    local there = redis.call('HGET', key, field)
    if there then
      local counted, last = read(there)
      write(key, slot_ms, field, math.max(counted + tonumber(ARGV[at + 1]), 0), last)
    end
    at = at + 2
  end

  local counts, total = {}, 0
  local fields = redis.call('HGETALL', key)
  for number = 1, #fields, 2 do
    local amount, last = read(fields[number + 1])
    if last <= left then
      redis.call('HDEL', key, fields[number])
    else
      counts[fields[number]] = fields[number + 1]
      total = total + amount
    end
  end
  if asked > 0 and total + asked > limit then
    room = false
  end
  meters[index] = {key, slot_ms, asked, counts}
end

local told = {now, epoch, processes, room and 1 or 0}
for index = 3, #KEYS do
  local key, slot_ms, asked, counts = unpack(meters[index])
  if room and asked > 0 then
    local field = whole(math.floor(now / slot_ms)) .. ':' .. process
    local amount = (counts[field] and read(counts[field]) or 0) + asked
    write(key, slot_ms, field, amount, now)
    counts[field] = whole(amount) .. '@' .. whole(now)
  end
  local texts = {}
  for field, count in pairs(counts) do
    texts[#texts + 1] = field .. '=' .. count
  end
  told[#told + 1] = table.concat(texts, ',')
end
return told

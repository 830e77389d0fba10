-- Counts all that a request asks of its meters, or nothing, in one step.
--
-- KEYS  the clock, the processes, then each meter.
-- ARGV  this process, the epoch it knows, a new epoch, what it takes the time to be, for how long a
--       process counts as alive (ms), slots to a length; then of each meter: ms of a slot, amount of
--       the limit, amount asked, how many counts it tells, of its own and of others that it heard of,
--       each as slot, process and amount, and how many of its own it changes, each as slot and amount.
-- Answers now (ms), epoch, processes alive, whether it was counted, and of each meter its hash.
--
-- A meter is a hash of SLOT:PROCESS -> amount. The clock never goes back.

local process, epoch_known, epoch_new = ARGV[1], ARGV[2], ARGV[3]
local time_there, alive_ms, slots = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local FAR_MS = 1000  -- a clock that went back so far was set, and will not catch up
local KEPT_MS = 172800000  -- longer than any meter

local function whole(number)
  return string.format('%.0f', number)
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
  local slot = math.floor(now / slot_ms)
  for number = 1, known + changes do
    local is_known = number <= known
    local name, who = tonumber(ARGV[at]), is_known and ARGV[at + 1] or process
    at = at + (is_known and 2 or 1)
    local amount = tonumber(ARGV[at])
    at = at + 1
    if name >= slot - slots then
      local field = whole(name) .. ':' .. who
      local counted = tonumber(redis.call('HGET', key, field) or 0)
      -- Never less than what is known here: an old message may arrive late.
      local right = is_known and math.max(counted, amount) or math.max(counted + amount, 0)
      if right ~= counted then
        redis.call('HSET', key, field, whole(right))
        redis.call('PEXPIRE', key, slot_ms * (slots + 2))
      end
    end
  end

  local counts, total = {}, 0
  local fields = redis.call('HGETALL', key)
  for number = 1, #fields, 2 do
    local name = tonumber(string.match(fields[number], '^%d+'))
    if name < slot - slots then
      redis.call('HDEL', key, fields[number])
    else
      local amount = tonumber(fields[number + 1])
      counts[fields[number]] = amount
      total = total + amount
    end
  end
  if asked > 0 and total + asked > limit then
    room = false
  end
  meters[index] = {key, slot_ms, slot, asked, counts}
end

local told = {now, epoch, processes, room and 1 or 0}
for index = 3, #KEYS do
  local key, slot_ms, slot, asked, counts = unpack(meters[index])
  if room and asked > 0 then
    local field = whole(slot) .. ':' .. process
    redis.call('HINCRBY', key, field, whole(asked))
    redis.call('PEXPIRE', key, slot_ms * (slots + 2))
    counts[field] = (counts[field] or 0) + asked
  end
  local texts = {}
  for field, amount in pairs(counts) do
    texts[#texts + 1] = field .. '=' .. whole(amount)
  end
  told[#told + 1] = table.concat(texts, ',')
end
return told

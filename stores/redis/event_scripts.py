"""The scripts of the event log: each is one atomic step on the streams of one shard.

What is known of a stream is a hash of short fields:

    h head   l number of the newest event   w writer   d '1' when it has ended   b bytes of the events   a newest append

Times are as in `scripts.py`. The keys of a stream expire by themselves a day after it is too old, for where no node is
left to sweep.
"""

from __future__ import annotations

from ..event_log import STREAM_OVERHEAD
from .scripts import Script

__all__ = [
    "APPEND",
    "DROP",
    "DROP_ALL",
    "EVENT_SCRIPTS",
    "LOOK",
    "OLDEST",
    "READ",
    "REPEATED",
    "SWEEP_STREAMS",
    "TAKEN",
]

REPEATED = 1
"""Answered to an append of which all is there."""
TAKEN = 2
"""Answered first to one that neither follows nor repeats, before the newest event's number and whether it ended."""

_LEAVE = """
local function leave(meta, list, names, name, appended, sizes, total, stream)
  redis.call('DEL', meta, list)
  redis.call('SREM', names, name)
  redis.call('ZREM', appended, stream)
  local size = redis.call('HGET', sizes, stream)
  if size then
    redis.call('HDEL', sizes, stream)
    if redis.call('DECRBY', total, size) <= 0 then redis.call('DEL', total) end
  end
end
local function parts(stream)
  local slash = string.find(stream, '/', 1, true)
  return string.sub(stream, 1, slash - 1), string.sub(stream, slash + 1)
end
"""

# What comes is the end of the append where its beginning would have to make room for its end: `cut` are left out. A
# repeat writes what is there already where replicas must have it, as in SAVE.
APPEND = Script.of(
    6,
    _LEAVE
    + """
-- stream, events, names, appended, sizes, total;
-- now, STREAM, name, first, how many, cut, writer, ends or '', head, most events, most bytes, age, replicas, events
local meta, list, names, appended, sizes, total = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local now, stream, name = clock(ARGV[1]), ARGV[2], ARGV[3]
local first, count, cut, writer, ends = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
local known = redis.call('HMGET', meta, 'a', 'l', 'w', 'd', 'b')
local head, last, held, bytes, there = #ARGV[9], first - 1, 0, 0, 0
local begins = not known[1] or tonumber(known[1]) + ARGV[12] <= now
if not begins then
  last = tonumber(known[2])
  local newest, ended = first + count - 1, known[4] == '1'
  if known[3] == writer and first <= last + 1 then
    if newest <= last and (ends == '' or (ended and newest == last)) then
      if ARGV[13] ~= '0' then redis.call('HSET', meta, 'w', writer) end
      return 1
    end
    if newest < last or ended then return {2, known[2], known[4]} end
    there = last + 1 - first
  elseif first ~= last + 1 or ended then
    return {2, known[2], known[4]}
  end
  bytes = tonumber(known[5])
  held = redis.call('LLEN', list)
  head = redis.call('HSTRLEN', meta, 'h')
elseif known[1] then
  leave(meta, list, names, name, appended, sizes, total, stream)
end
local trimmed, start = 0, 14 + there - cut
if cut > there then
  trimmed = held + cut - there
  if held > 0 then redis.call('DEL', list) end
  held, bytes, start = 0, 0, 14
end
for from = start, #ARGV, 1000 do
  local to = math.min(from + 999, #ARGV)
  for place = from, to do bytes = bytes + #ARGV[place] end
  held = redis.call('RPUSH', list, unpack(ARGV, from, to))
end
while held > tonumber(ARGV[10]) or (bytes > tonumber(ARGV[11]) and held > 1) do
  bytes = bytes - #redis.call('LPOP', list)
  held = held - 1
  trimmed = trimmed + 1
end
last = whole(math.max(last, first + count - 1))
now = whole(now)
if begins then
  redis.call('HSET', meta, 'h', ARGV[9], 'l', last, 'w', writer, 'd', ends, 'b', bytes, 'a', now)
  redis.call('SADD', names, name)
else
  redis.call('HSET', meta, 'l', last, 'w', writer, 'd', ends, 'b', bytes, 'a', now)
end
redis.call('ZADD', appended, now, stream)
local size = bytes + head + OVERHEAD
local before = redis.call('HGET', sizes, stream) or 0
redis.call('HSET', sizes, stream, size)
local sum = redis.call('INCRBY', total, size - before)
local life = math.ceil(ARGV[12] / 1000) + 86400000
for _, key in ipairs({meta, list, names}) do redis.call('PEXPIRE', key, whole(life)) end
return {0, sum, trimmed}
""".replace("OVERHEAD", str(STREAM_OVERHEAD)),
)

READ = Script.of(
    2,
    """
-- stream, events; now, age, after
local known = redis.call('HMGET', KEYS[1], 'a', 'l', 'w', 'd', 'h')
if not known[1] or tonumber(known[1]) + ARGV[2] <= clock(ARGV[1]) then return 0 end
local held = redis.call('LLEN', KEYS[2])
local skipped = math.max(ARGV[3] - (tonumber(known[2]) - held), 0)
local events = {}
if skipped < held then events = redis.call('LRANGE', KEYS[2], whole(skipped), -1) end
return {known[5], known[2], known[3], known[4], held, events}
""",
)

# With a time the stream goes only if nothing has been appended to it since.
DROP = Script.of(
    6,
    _LEAVE
    + """
-- stream, events, names, appended, sizes, total; STREAM, name, time of the newest append or ''
if ARGV[3] ~= '' and redis.call('ZSCORE', KEYS[4], ARGV[1]) ~= ARGV[3] then return 0 end
leave(KEYS[1], KEYS[2], KEYS[3], ARGV[2], KEYS[4], KEYS[5], KEYS[6], ARGV[1])
return 1
""",
)

# Of the keys that these reach without naming them, all lie in the slot of those that they name.
DROP_ALL = Script.of(
    4,
    _LEAVE
    + """
-- names, appended, sizes, total; kind/id, what keys of streams begin with, what keys of events begin with
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local stream = name .. '/' .. ARGV[1]
  leave(ARGV[2] .. stream, ARGV[3] .. stream, KEYS[1], name, KEYS[2], KEYS[3], KEYS[4], stream)
end
return 1
""",
)

LOOK = Script.of(
    2,
    """
-- appended, total; now, age
local old = redis.call('ZCOUNT', KEYS[1], '-inf', whole(clock(ARGV[1]) - ARGV[2]))
return {old, tonumber(redis.call('GET', KEYS[2]) or 0)}
""",
)

SWEEP_STREAMS = Script.of(
    3,
    _LEAVE
    + """
-- appended, sizes, total; now, age, how many, what keys of streams begin with, of events, of names
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', whole(clock(ARGV[1]) - ARGV[2]), 'LIMIT', 0, ARGV[3])
for _, stream in ipairs(old) do
  local name, address = parts(stream)
  leave(ARGV[4] .. stream, ARGV[5] .. stream, ARGV[6] .. address, name, KEYS[1], KEYS[2], KEYS[3], stream)
end
return #old
""",
)

OLDEST = Script.of(
    2,
    """
-- appended, sizes; how many
local found = redis.call('ZRANGE', KEYS[1], 0, ARGV[1], 'WITHSCORES')
local sizes = {}
for place = 1, #found, 2 do sizes[#sizes + 1] = redis.call('HGET', KEYS[2], found[place]) or '0' end
return {found, sizes, redis.call('ZCARD', KEYS[1])}
""",
)

EVENT_SCRIPTS = (APPEND, READ, DROP, DROP_ALL, LOOK, SWEEP_STREAMS, OLDEST)
"""Those of the event log, which each connection makes known to its server."""

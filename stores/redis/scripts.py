"""The scripts that Redis runs: each is one atomic step of the contract, on one shard, in one round trip.

A time is a whole number of microseconds since the Unix epoch; where the caller gives none it is the server's. A record
is a hash of short fields:

    t tenant   e epoch   v version   o owner   w writer: the store that gave the epoch out
    c created  u updated x expires   i the time that the index of ends has, never later than x
    s snapshot

The native expiry of the key comes later than `x` by `MARGIN`: what counts is `x`, by one clock, and the expiry cleans
up where no node is left to do so. A script's first write is one that Redis refuses when it may not write (no memory, a
replica, a full disk), so that a refusal has changed nothing. What finds no record deletes none (`gone`): a replica,
which may lack what its primary has, refuses that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = [
    "ADOPT",
    "CLAIM",
    "CREATE",
    "DELETE",
    "GONE",
    "LOAD",
    "OVERDUE",
    "PAGE",
    "PROBE",
    "SAVE",
    "SCHEMA",
    "SCRIPTS",
    "STALE",
    "SWEEP",
    "TOUCH",
    "Script",
]

MARGIN = 60_000
"""Milliseconds."""

GONE = 0
"""Answered first where there is no live record."""
STALE = 2
"""Answered first, before the record's epoch, where the epoch, the version or the writer is another."""

_CLOCK = """
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function whole(number) return string.format('%.0f', number) end
local function gone(key, there)
  if not there then redis.call('DEL', key) end
  return 0
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that Redis has for it."""

    body: bytes
    sha: bytes
    keys: bytes
    """How many of its arguments are keys."""

    @staticmethod
    def of(keys: int, body: str) -> Script:
        """The script `body` with what all have in common."""
        text = (_CLOCK + body).replace("MARGIN", str(MARGIN)).encode()
        return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode(), b"%d" % keys)


CREATE = Script.of(
    3,
    """
-- record, index, ends; now, lifetime, address, tenant, owner, writer, snapshot
local now = clock(ARGV[1])
local old = redis.call('HMGET', KEYS[1], 'x', 't')
if old[1] and tonumber(old[1]) > now then return 1 end
local member = ARGV[4] .. '\\0' .. ARGV[3]
local expires = whole(now + ARGV[2])
redis.call('ZADD', KEYS[2], 0, member)
redis.call('ZADD', KEYS[3], expires, member)
if old[1] then
  if old[2] ~= ARGV[4] then
    redis.call('ZREM', KEYS[2], old[2] .. '\\0' .. ARGV[3])
    redis.call('ZREM', KEYS[3], old[2] .. '\\0' .. ARGV[3])
  end
  redis.call('DEL', KEYS[1])
end
now = whole(now)
redis.call('HSET', KEYS[1], 't', ARGV[4], 'e', 1, 'v', 1, 'o', ARGV[5], 'w', ARGV[6], 'c', now, 'u', now,
  'x', expires, 'i', expires, 's', ARGV[7])
redis.call('PEXPIRE', KEYS[1], whole(math.ceil(ARGV[2] / 1000) + MARGIN))
return {now, expires}
""",
)

ADOPT = Script.of(
    3,
    """
-- record, index, ends; now, address, tenant, owner, writer, snapshot, epoch, version, created, updated, expires,
-- the epoch and the version that may be there, or ''
local now = clock(ARGV[1])
local old = redis.call('HMGET', KEYS[1], 'x', 't', 'e', 'v')
if old[1] and tonumber(old[1]) > now and (old[3] ~= ARGV[12] or old[4] ~= ARGV[13]) then
  if old[3] ~= ARGV[7] or old[4] ~= ARGV[8] then return 0 end
  redis.call('HSET', KEYS[1], 'v', old[4])
  return 1
end
local member = ARGV[3] .. '\\0' .. ARGV[2]
redis.call('ZADD', KEYS[2], 0, member)
redis.call('ZADD', KEYS[3], ARGV[11], member)
if old[1] then
  if old[2] ~= ARGV[3] then
    redis.call('ZREM', KEYS[2], old[2] .. '\\0' .. ARGV[2])
    redis.call('ZREM', KEYS[3], old[2] .. '\\0' .. ARGV[2])
  end
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], 't', ARGV[3], 'e', ARGV[7], 'v', ARGV[8], 'o', ARGV[4], 'w', ARGV[5], 'c', ARGV[9],
  'u', ARGV[10], 'x', ARGV[11], 'i', ARGV[11], 's', ARGV[6])
redis.call('PEXPIRE', KEYS[1], whole(math.max(math.ceil((ARGV[11] - now) / 1000), 0) + MARGIN))
return 1
""",
)

CLAIM = Script.of(
    1,
    """
-- record; now, owner, writer
local record = redis.call('HMGET', KEYS[1], 'x', 'e', 't', 'v', 'c', 'u', 's')
if not record[1] or tonumber(record[1]) <= clock(ARGV[1]) then return gone(KEYS[1], record[1]) end
record[2] = whole(record[2] + 1)
redis.call('HSET', KEYS[1], 'e', record[2], 'o', ARGV[2], 'w', ARGV[3])
return record
""",
)

LOAD = Script.of(
    1,
    """
-- record; now
local record = redis.call('HMGET', KEYS[1], 'x', 'e', 't', 'v', 'c', 'u', 's', 'o')
if not record[1] or tonumber(record[1]) <= clock(ARGV[1]) then return gone(KEYS[1], record[1]) end
return record
""",
)

# A repeat writes what is there already where replicas must have it: WAIT waits for writes of its own connection only.
SAVE = Script.of(
    2,
    """
-- record, ends; now, lifetime, address, epoch, writer or '', version, the version before, snapshot, replicas
local record = redis.call('HMGET', KEYS[1], 'x', 'e', 'v', 'w', 'i', 't')
local now = clock(ARGV[1])
if not record[1] or tonumber(record[1]) <= now then return gone(KEYS[1], record[1]) end
if record[2] ~= ARGV[4] or (ARGV[5] ~= '' and record[4] ~= ARGV[5]) then return {2, record[2]} end
if record[3] ~= ARGV[7] then
  if record[3] ~= ARGV[6] then return {2, record[2]} end
  if ARGV[9] ~= '0' then redis.call('HSET', KEYS[1], 'v', record[3]) end
  return 1
end
local expires = whole(now + ARGV[2])
if tonumber(expires) < tonumber(record[5]) then
  redis.call('ZADD', KEYS[2], expires, record[6] .. '\\0' .. ARGV[3])
  redis.call('HSET', KEYS[1], 'v', ARGV[6], 'u', whole(now), 'x', expires, 's', ARGV[8], 'i', expires)
else
  redis.call('HSET', KEYS[1], 'v', ARGV[6], 'u', whole(now), 'x', expires, 's', ARGV[8])
end
redis.call('PEXPIRE', KEYS[1], whole(math.ceil(ARGV[2] / 1000) + MARGIN))
return 1
""",
)

TOUCH = Script.of(
    2,
    """
-- record, ends; now, lifetime, address, epoch, writer or ''
local record = redis.call('HMGET', KEYS[1], 'x', 'e', 'w', 'i', 't')
local now = clock(ARGV[1])
if not record[1] or tonumber(record[1]) <= now then return gone(KEYS[1], record[1]) end
if record[2] ~= ARGV[4] or (ARGV[5] ~= '' and record[3] ~= ARGV[5]) then return {2, record[2]} end
local expires = whole(now + ARGV[2])
if tonumber(expires) < tonumber(record[4]) then
  redis.call('ZADD', KEYS[2], expires, record[5] .. '\\0' .. ARGV[3])
  redis.call('HSET', KEYS[1], 'x', expires, 'i', expires)
else
  redis.call('HSET', KEYS[1], 'x', expires)
end
redis.call('PEXPIRE', KEYS[1], whole(math.ceil(ARGV[2] / 1000) + MARGIN))
return 1
""",
)

DELETE = Script.of(
    3,
    """
-- record, index, ends; now, address, epoch or '', writer or ''
local record = redis.call('HMGET', KEYS[1], 'x', 'e', 'w', 't')
if not record[1] or tonumber(record[1]) <= clock(ARGV[1]) then return gone(KEYS[1], record[1]) end
if ARGV[3] ~= '' and (record[2] ~= ARGV[3] or (ARGV[4] ~= '' and record[3] ~= ARGV[4])) then return {2, record[2]} end
local member = record[4] .. '\\0' .. ARGV[2]
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], member)
redis.call('ZREM', KEYS[3], member)
return 1
""",
)

# Records lie in the slot of their index, so a cluster lets the script reach those that it does not name.
PAGE = Script.of(
    2,
    """
-- index, ends; now, what keys of records begin with, from, to, how many
local now = clock(ARGV[1])
local from, wanted, found = ARGV[3], tonumber(ARGV[5]), {}
for _ = 1, 10 do
  local members = redis.call('ZRANGEBYLEX', KEYS[1], from, ARGV[4], 'LIMIT', 0, wanted)
  for _, member in ipairs(members) do
    local address = string.sub(member, string.find(member, '\\0', 1, true) + 1)
    local record = redis.call('HMGET', ARGV[2] .. address, 'x', 'e', 't', 'v', 'c', 'u', 'o')
    if not record[1] then
      redis.pcall('ZREM', KEYS[1], member)
      redis.pcall('ZREM', KEYS[2], member)
    elseif tonumber(record[1]) > now then
      record[8] = address
      found[#found + 1] = record
    end
    from = '(' .. member
    if #found == tonumber(ARGV[5]) then return {from, found} end
  end
  if #members < wanted then return {'', found} end
end
return {from, found}
""",
)

OVERDUE = Script.of(
    1,
    """
-- ends; now
return redis.call('ZCOUNT', KEYS[1], '-inf', whole(clock(ARGV[1])))
""",
)

SWEEP = Script.of(
    2,
    """
-- index, ends; now, what keys of records begin with, how many
local now = clock(ARGV[1])
local gone, alive = 0, {}
local members = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now), 'LIMIT', 0, ARGV[3])
for _, member in ipairs(members) do
  local key = ARGV[2] .. string.sub(member, string.find(member, '\\0', 1, true) + 1)
  local expires = redis.call('HGET', key, 'x')
  if expires and tonumber(expires) > now then
    alive[#alive + 1] = {key, expires, member}
  else
    redis.call('DEL', key)
    redis.call('ZREM', KEYS[1], member)
    redis.call('ZREM', KEYS[2], member)
    gone = gone + 1
  end
end
for _, one in ipairs(alive) do
  -- Refused where there is no memory: the next sweep finds it again.
  if type(redis.pcall('ZADD', KEYS[2], one[2], one[3])) == 'number' then redis.call('HSET', one[1], 'i', one[2]) end
end
return {#members, gone}
""",
)

SCHEMA = Script.of(
    1,
    """
-- schema; format, shards, a new id
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'shards', ARGV[2], 'id', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'format', 'shards', 'id')
""",
)

PROBE = Script.of(
    1,
    """
redis.call('SET', KEYS[1], '', 'PX', 3600000)
return 1
""",
)

SCRIPTS = (CREATE, ADOPT, CLAIM, LOAD, SAVE, TOUCH, DELETE, PAGE, OVERDUE, SWEEP, SCHEMA, PROBE)
"""Those of records, which each connection makes known to its server."""

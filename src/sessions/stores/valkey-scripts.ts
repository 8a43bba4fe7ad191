/**
 * What must happen in one step on the server. Two hashes hold what must outlast the snapshots that the server may evict: as
 * the keys that are used most they go last, and they have no expiry. `claims` has each key's last fence and until when it is
 * held (`<fence>:<ms>`), for a day after that, to recognise fences that are no longer current; fences count the server's
 * microseconds, so that they rise even where the last one is forgotten. `revisions` has each key's last revision, or `x`
 * after a deletion, and `:<ms>` if that ends. What has ended is swept.
 */

const NOW_MS = `local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`;

/** KEYS: claims. ARGV: field, ttl in ms. Returns the fence as text, or nothing. */
export const CLAIM = `${NOW_MS}
local last = redis.call('HGET', KEYS[1], ARGV[1]) or '0:0'
if tonumber(string.match(last, ':(%d+)$')) > now then return false end
local fence = math.max(tonumber(string.match(last, '^%d+')) + 1, time[1] * 1000000 + time[2])
fence = string.format('%.0f', fence)
redis.call('HSET', KEYS[1], ARGV[1], fence .. ':' .. string.format('%.0f', now + ARGV[2]))
return fence`;

/** KEYS: claims. ARGV: field, ttl in ms (0 releases), fence. Returns 1, or 0 if another has claimed, or it is forgotten. */
export const RENEW = `${NOW_MS}
local last = redis.call('HGET', KEYS[1], ARGV[1])
if not last or string.match(last, '^%d+') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ':' .. string.format('%.0f', now + ARGV[2]))
return 1`;

/**
 * KEYS: snapshot, claims, revisions. ARGV: snapshot, ms to live or '', fence or '', field of both, revision or '' for none to
 * remember. Returns 1, or 0 if another has claimed, or the claim is forgotten, or a later revision is known.
 */
export const PUT = `${NOW_MS}
if ARGV[3] ~= '' then
  local claim = redis.call('HGET', KEYS[2], ARGV[4])
  if not claim or string.match(claim, '^%d+') ~= ARGV[3] then return 0 end
  local known = redis.call('HGET', KEYS[3], ARGV[4])
  local last = known and tonumber(string.match(known, '^%d+'))
  if last and ARGV[5] ~= '' and last > tonumber(ARGV[5]) then return 0 end
end
local record = ARGV[5]
if ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[1])
elseif tonumber(ARGV[2]) <= 0 then redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  record = record .. ':' .. string.format('%.0f', now + ARGV[2])
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[3], ARGV[4], record) end
return 1`;

/**
 * KEYS: snapshot, revisions. ARGV: what stands in the place of something deleted, ms to live, field of the revisions.
 * Returns 1 if there was a snapshot. A server that has no memory left takes the mark too: a script that has written already may.
 */
export const DELETE = `${NOW_MS}
local first = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], 'x:' .. string.format('%.0f', now + ARGV[2]))
return (first == '' or first == ARGV[1]) and 0 or 1`;

/** KEYS: snapshot, revisions. ARGV: bytes of the snapshot, field. Returns its first bytes, and the record or ''. */
export const LOOK = `${NOW_MS}
local record = redis.call('HGET', KEYS[2], ARGV[2]) or ''
local until_ms = tonumber(string.match(record, ':(%d+)$'))
if until_ms and until_ms <= now then record = '' end
return {redis.call('GETRANGE', KEYS[1], 0, ARGV[1] - 1), record}`;

/** KEYS: either hash. ARGV: fields and records in turn, that have ended. Each goes, unless it has changed since. */
export const FORGET = `for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 1`;

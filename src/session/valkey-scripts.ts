/**
 * What must happen in one step on the server. A key's claim is a hash of its last fence and until when it is held; it is
 * remembered for a day after that, to recognise fences that are no longer current. Fences count the server's
 * microseconds, so that they rise even where the last one is forgotten.
 */

const NOW_MS = `local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`;

/** KEYS: claim. ARGV: ttl in ms, how long to remember in ms. Returns the fence as text, or nothing. */
export const CLAIM = `${NOW_MS}
local last = redis.call('HMGET', KEYS[1], 'fence', 'until')
if last[2] and tonumber(last[2]) > now then return false end
local fence = math.max((tonumber(last[1]) or 0) + 1, time[1] * 1000000 + time[2])
fence = string.format('%.0f', fence)
redis.call('HSET', KEYS[1], 'fence', fence, 'until', string.format('%.0f', now + ARGV[1]))
redis.call('PEXPIRE', KEYS[1], ARGV[1] + ARGV[2])
return fence`;

/** KEYS: claim. ARGV: fence, ttl in ms (0 releases), how long to remember in ms. Returns 1, or 0 if another has claimed. */
export const RENEW = `${NOW_MS}
local fence = redis.call('HGET', KEYS[1], 'fence')
if fence and fence ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[3])
return 1`;

/** KEYS: snapshot, claim. ARGV: snapshot, ms to live or '', fence or ''. Returns 1, or 0 if another has claimed. */
export const PUT = `if ARGV[3] ~= '' then
  local fence = redis.call('HGET', KEYS[2], 'fence')
  if fence and fence ~= ARGV[3] then return 0 end
end
if ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[1])
elseif tonumber(ARGV[2]) <= 0 then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1`;

/**
 * KEYS: snapshot. ARGV: what stands in the place of something deleted, ms to live. Returns 1 if there was a snapshot.
 * A server that has no memory left takes the mark too: a script that has written already may.
 */
export const DELETE = `local first = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return (first == '' or first == ARGV[1]) and 0 or 1`;

/** Memory of the device, and pinned memory: blocks between canaries. Copies are written down by direction and kind. */
#include "device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>

namespace device {

std::map<uintptr_t, Block> blocks;

static constexpr size_t CANARY_BYTES = 256; /* also the alignment */
static constexpr unsigned char CANARY = 0xa5;
/**
 * Of memory that nobody has written: a device's is not zeros. As an id it is too large; as a float
 * next to nothing, and so is what follows from it where nothing is computed.
 */
static constexpr unsigned char UNWRITTEN = 0x01;
/** Of memory that has been freed, for as long as it is kept from others. */
static constexpr unsigned char FREED = 0xee;
static constexpr size_t MOST_FREED_BYTES = 8 << 20;
static std::deque<Block> freed; /* oldest first */
static size_t numFreedBytes = 0;
static size_t capacity = size_t(8) << 30, numTaken = 0;

static const std::pair<const uintptr_t, Block> *block_of(const void *address) {
  auto next = blocks.upper_bound((uintptr_t)address);
  if (next == blocks.begin()) return nullptr;
  const auto &found = *--next;
  /* One past the end belongs to it as well: an empty tensor may be there. */
  return (uintptr_t)address <= found.first + found.second.numBytes ? &found : nullptr;
}

Memory memory_of(const void *address) {
  const auto *found = block_of(address);
  return found == nullptr ? PAGEABLE : found->second.memory;
}

bool is_inside(const void *address, size_t numBytes) {
  const auto *found = block_of(address);
  return found == nullptr || (uintptr_t)address + numBytes <= found->first + found->second.numBytes;
}

static size_t rounded(size_t numBytes) { return (numBytes + CANARY_BYTES - 1) / CANARY_BYTES * CANARY_BYTES; }

static int take(const char *call, void **out, size_t numBytes, Memory memory) {
  if (const int error = refuse_while_capturing(call)) return error;
  *out = nullptr;
  if (memory == DEVICE && numBytes > capacity - numTaken) return give(OUT_OF_MEMORY);
  char *base = (char *)aligned_alloc(CANARY_BYTES, rounded(numBytes) + 2 * CANARY_BYTES);
  if (base == nullptr) return give(OUT_OF_MEMORY);
  char *data = base + CANARY_BYTES;
  memset(base, CANARY, CANARY_BYTES);
  memset(data, UNWRITTEN, numBytes);
  memset(data + numBytes, CANARY, rounded(numBytes) - numBytes + CANARY_BYTES);
  blocks[(uintptr_t)data] = {base, numBytes, memory};
  if (memory == DEVICE) numTaken += numBytes;
  *out = data;
  return SUCCESS;
}

static bool is_whole(uintptr_t address, const Block &block) {
  const auto *before = (const unsigned char *)block.base, *behind = (const unsigned char *)address + block.numBytes;
  const size_t numBehind = rounded(block.numBytes) - block.numBytes + CANARY_BYTES;
  for (size_t i = 0; i < CANARY_BYTES; i++) {
    if (before[i] != CANARY) return false;
  }
  for (size_t i = 0; i < numBehind; i++) {
    if (behind[i] != CANARY) return false;
  }
  return true;
}

static void check_freed(const Block &block) {
  const auto *data = (const unsigned char *)block.base + CANARY_BYTES;
  if (std::all_of(data, data + block.numBytes, [](unsigned char byte) { return byte == FREED; })) return;
  refuse("write", "to a block of " + std::to_string(block.numBytes) + " bytes that has been freed", 0);
}

void check_canaries() {
  for (const auto &[address, block] : blocks) {
    if (!is_whole(address, block)) refuse("write", "outside of a block of " + std::to_string(block.numBytes) + " bytes", 0);
  }
  for (const Block &block : freed) check_freed(block);
}

/** Kept for a while, so that what is still written to it shows. */
static void keep_freed(const Block &block) {
  memset(block.base + CANARY_BYTES, FREED, block.numBytes);
  freed.push_back(block);
  for (numFreedBytes += block.numBytes; numFreedBytes > MOST_FREED_BYTES; freed.pop_front()) {
    check_freed(freed.front());
    numFreedBytes -= freed.front().numBytes;
    free(freed.front().base);
  }
}

static int release(const char *call, void *data, Memory memory) {
  if (const int error = refuse_while_capturing(call)) return error;
  if (data == nullptr) return SUCCESS;
  drain_all(); /* freeing waits for the device */
  const auto found = blocks.find((uintptr_t)data);
  if (found == blocks.end() || found->second.memory != memory) return refuse(call, "of what is not allocated", INVALID_VALUE);
  if (!is_whole(found->first, found->second)) {
    refuse("write", "outside of a block of " + std::to_string(found->second.numBytes) + " bytes", 0);
  }
  if (memory == DEVICE) numTaken -= found->second.numBytes;
  keep_freed(found->second);
  blocks.erase(found);
  return SUCCESS;
}

static const char *name_of(Memory memory) { return memory == DEVICE ? "device" : memory == PINNED ? "pinned" : "pageable"; }

/** `isAsync`: for the caller. What pageable memory holds is read at once, or written before the call returns. */
static int copy(const char *call, void *to, const void *from, size_t numBytes, int kind, void *stream, bool isAsync) {
  const Memory source = memory_of(from), target = memory_of(to);
  const bool fromDevice = source == DEVICE, toDevice = target == DEVICE;
  const int actual = (fromDevice ? 2 : 0) + (toDevice ? 1 : 0);
  if (kind != BY_ADDRESS && kind != actual) {
    return refuse(call, std::string("from ") + name_of(source) + " to " + name_of(target) + " is not of kind " + std::to_string(kind),
                  INVALID_VALUE);
  }
  if (!is_inside(from, numBytes) || !is_inside(to, numBytes)) {
    return refuse(call, "of " + std::to_string(numBytes) + " bytes reaches past the end of a block", INVALID_VALUE);
  }
  Stream *s = stream_of(stream);
  const bool hasPageable = (source == PAGEABLE || target == PAGEABLE) && (fromDevice || toDevice);
  if (s->capture != nullptr && (!isAsync || hasPageable)) {
    s->capture->isValid = false;
    return refuse(call, isAsync ? "of pageable memory while capturing" : "waits while capturing", CAPTURE_UNSUPPORTED);
  }
  const std::string direction = std::string(name_of(source)) + " to " + name_of(target);
  Work work = {"copy", [=] {
                 if (memory_of(from) != source || memory_of(to) != target || !is_inside(from, numBytes) || !is_inside(to, numBytes)) {
                   refuse(call, "of memory that has been freed", 0);
                   return;
                 }
                 book.copies[direction]++;
                 book.copiedBytes[direction] += (long)numBytes;
                 memmove(to, from, numBytes);
               },
               from, to};
  if (const int error = submit(call, stream, std::move(work))) return error;
  if (!isAsync || hasPageable) drain(s);
  return SUCCESS;
}

static int set(const char *call, void *to, int value, size_t numBytes, void *stream) {
  if (memory_of(to) != DEVICE || !is_inside(to, numBytes)) return refuse(call, "outside of the device's memory", INVALID_VALUE);
  return submit(call, stream, {"set", [=] {
                  if (memory_of(to) == DEVICE && is_inside(to, numBytes)) memset(to, value, numBytes);
                  else refuse(call, "of memory that has been freed", 0);
                }});
}

}  // namespace device

using namespace device;

/** What is left to allocate. */
EXPORT void simulated_cuda_limit(size_t numBytes) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  capacity = numTaken + numBytes;
}

/** Of the device's blocks the one of this size; NULL unless there is exactly one. */
EXPORT void *simulated_cuda_find_block(size_t numBytes) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  void *found = nullptr;
  for (const auto &[address, block] : blocks) {
    if (block.memory != DEVICE || block.numBytes != numBytes) continue;
    if (found != nullptr) return nullptr;
    found = (void *)address;
  }
  return found;
}

/** All blocks and handles. */
EXPORT void simulated_cuda_forget() {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  for (const auto &[_, block] : blocks) free(block.base);
  blocks.clear();
  handles.clear();
  numTaken = 0;
}

EXPORT int cudaMalloc(void **out, size_t numBytes) {
  ENTER(cudaMalloc);
  return take("cudaMalloc", out, numBytes, DEVICE);
}

EXPORT int cudaMallocFromPoolAsync(void **out, size_t numBytes, void *, void *) {
  ENTER(cudaMallocFromPoolAsync);
  return take("cudaMallocFromPoolAsync", out, numBytes, DEVICE);
}

EXPORT int cudaMallocHost(void **out, size_t numBytes) {
  ENTER(cudaMallocHost);
  return take("cudaMallocHost", out, numBytes, PINNED);
}

EXPORT int cudaHostAlloc(void **out, size_t numBytes, unsigned) {
  ENTER(cudaHostAlloc);
  return take("cudaHostAlloc", out, numBytes, PINNED);
}

EXPORT int cudaFree(void *data) {
  ENTER(cudaFree);
  return release("cudaFree", data, DEVICE);
}

EXPORT int cudaFreeAsync(void *data, void *) {
  ENTER(cudaFreeAsync);
  return release("cudaFreeAsync", data, DEVICE);
}

EXPORT int cudaFreeHost(void *data) {
  ENTER(cudaFreeHost);
  return release("cudaFreeHost", data, PINNED);
}

EXPORT int cudaMemcpy(void *to, const void *from, size_t numBytes, int kind) {
  ENTER(cudaMemcpy);
  if (const int error = refuse_while_capturing("cudaMemcpy", CAPTURE_IMPLICIT)) return error;
  return copy("cudaMemcpy", to, from, numBytes, kind, nullptr, false);
}

EXPORT int cudaMemcpyAsync(void *to, const void *from, size_t numBytes, int kind, void *stream) {
  ENTER(cudaMemcpyAsync);
  return copy("cudaMemcpyAsync", to, from, numBytes, kind, stream, true);
}

EXPORT int cudaMemset(void *to, int value, size_t numBytes) {
  ENTER(cudaMemset);
  if (const int error = refuse_while_capturing("cudaMemset", CAPTURE_IMPLICIT)) return error;
  return set("cudaMemset", to, value, numBytes, nullptr);
}

EXPORT int cudaMemsetAsync(void *to, int value, size_t numBytes, void *stream) {
  ENTER(cudaMemsetAsync);
  return set("cudaMemsetAsync", to, value, numBytes, stream);
}

EXPORT int cudaMemGetInfo(size_t *numFree, size_t *numBytes) {
  ENTER(cudaMemGetInfo);
  *numBytes = capacity;
  *numFree = capacity - numTaken;
  return SUCCESS;
}

EXPORT int cudaPointerGetAttributes(void *attributes, const void *address) {
  ENTER(cudaPointerGetAttributes);
  struct {
    int type, device;
    void *onDevice, *onHost;
    long reserved[8];
  } answer = {};
  const Memory memory = memory_of(address);
  answer.type = memory == DEVICE ? 2 : memory == PINNED ? 1 : 0;
  answer.onDevice = memory == PAGEABLE ? nullptr : (void *)address;
  answer.onHost = memory == DEVICE ? nullptr : (void *)address;
  static_assert(sizeof answer == 88);
  memcpy(attributes, &answer, sizeof answer);
  return SUCCESS;
}

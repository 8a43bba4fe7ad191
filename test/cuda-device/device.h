/**
 * A CUDA device that does not exist: what its parts share. Memory is the host's, work waits in
 * streams until something synchronises, and a book is kept of all that was done. README.md says
 * what it is for.
 */
#ifndef SIMULATED_DEVICE_H
#define SIMULATED_DEVICE_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

/** As CUDA numbers them. */
enum Error : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NO_KERNEL_IMAGE = 209,
  INVALID_HANDLE = 400,
  ILLEGAL_STATE = 401,
  SYMBOL_NOT_FOUND = 500,
  NOT_READY = 600,
  NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_ISOLATION = 905,
  CAPTURE_IMPLICIT = 906,
  CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908,
};
enum CopyKind { HOST_TO_HOST = 0, HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, DEVICE_TO_DEVICE = 3, BY_ADDRESS = 4 };
enum CaptureMode { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };
enum Memory { PAGEABLE, PINNED, DEVICE };

namespace device {

/**
 * One thing that a stream does, now or at every replay. `name`: of a kernel, or `copy`, `set`,
 * `host`, `event`, `take`, `give back`.
 */
struct Work {
  std::string name;
  std::function<void()> run;
  /* Of a copy. */
  const void *from = nullptr;
  void *to = nullptr;
};

struct Graph {
  std::vector<Work> works;
};

struct Capture {
  Graph *graph;
  int mode;
  std::thread::id thread;
  bool isValid;
};

struct Stream {
  bool isBlocking; /* waits for the default stream, and is waited for by it */
  std::vector<Work> queue;
  uint64_t numQueued, numDone;
  Capture *capture; /* NULL: none */
};

struct Event {
  Stream *stream;
  uint64_t position; /* in the stream's work */
  bool isCaptured;
};

struct Block {
  char *base; /* with the canary before it */
  size_t numBytes;
  Memory memory;
};

/** What is counted since the last reset, but for blocks, which stay. */
struct Book {
  std::map<std::string, long> calls, launches, copies, copiedBytes;
  std::vector<std::string> illegal; /* what a device would refuse, or ruin */
  std::vector<std::string> unsupported; /* functions that this simulation lacks */
  long captures = 0, replays = 0, synchronisations = 0;
};

extern std::recursive_mutex mutex;
extern Book book;
extern std::map<uintptr_t, Block> blocks;
extern std::map<const void *, std::string> handles;

/** Counts a call. `@returns` the error to give, if one has been asked for. */
int enter(const char *name);
/** Whether this thread's call is our own library's, and not the provider's. */
bool is_own();
/** Keeps the error for `cudaGetLastError`. */
int give(int error);
/** Writes down what must not be. */
int refuse(const char *call, const std::string &why, int error);

Stream *stream_of(void *handle);
/** Into the graph if the stream is being captured. */
int submit(const char *call, void *stream, Work work);
void drain(Stream *stream);
void drain(Stream *stream, uint64_t position);
void drain_all();
/** For calls that no capture of this thread allows. Invalidates them. */
int refuse_while_capturing(const char *call, int error = CAPTURE_UNSUPPORTED);

Memory memory_of(const void *address);
/** Whether [address, address + numBytes) lies in one block, or in the host's own memory. */
bool is_inside(const void *address, size_t numBytes);
void check_canaries();

/** What has been made and not destroyed, but for memory: streams, events, graphs. */
void hold(const char *kind, const void *handle);
/** Writes down what is none of its kind, or no longer. `@returns` 0, or the error to give */
int drop(const char *call, const char *kind, const void *handle);
int check_handle(const char *call, const char *kind, const void *handle);

}  // namespace device

/** The start of each function of CUDA's. */
#define ENTER(name)                                                          \
  std::lock_guard<std::recursive_mutex> lock(device::mutex);                 \
  if (const int fault = device::enter(#name); fault != 0) return device::give(fault)

#endif

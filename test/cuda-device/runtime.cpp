/**
 * The device itself: properties, errors, launches, and the book. ONNX Runtime's kernels are launches that compute nothing; ours,
 * emulated, compute when their stream comes to them.
 */
#include "device.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>

namespace device {

std::recursive_mutex mutex;
Book book;

struct Fault {
  long numSkipped;
  int error;
  bool stays;
};

static std::map<std::string, Fault> faults;
/** Of a process's two runtimes, the one that the provider is linked with and ours; each keeps its own last error. */
static thread_local int runtime = 0, lastErrors[2], numForgotten = 0;
/** How often all threads were made to forget theirs. */
static std::atomic<int> numForgets = 0;

static int &last_error() {
  if (numForgotten != numForgets) lastErrors[0] = lastErrors[1] = SUCCESS;
  numForgotten = numForgets;
  return lastErrors[runtime];
}
static std::map<const void *, std::string> kernels;
static bool isTraced = false;

bool is_own() { return runtime == 1; }

int give(int error) {
  if (error != SUCCESS) last_error() = error;
  return error;
}

/**
 * Of a program that is started: `SIMULATED_CUDA_LOST=cudaGraphLaunch:5:719`. From the sixth such call on all calls fail with 719;
 * with `:once` behind it, that call alone.
 */
static void lose_if_asked() {
  static const char *const text = getenv("SIMULATED_CUDA_LOST");
  static bool isLost = false;
  char name[64];
  long numCalls;
  int error, end = 0;
  if (text == nullptr || isLost || sscanf(text, "%63[^:]:%ld:%d%n", name, &numCalls, &error, &end) != 3) return;
  isLost = book.calls[name] > numCalls;
  if (!isLost) return;
  const bool isOnce = strcmp(text + end, ":once") == 0;
  faults[isOnce ? name : "*"] = {0, error, !isOnce};
}

int enter(const char *name) {
  book.calls[name]++;
  lose_if_asked();
  if (isTraced) fprintf(stderr, "%s\n", name);
  for (const std::string &key : {std::string(name), std::string("*")}) {
    const auto fault = faults.find(key);
    if (fault == faults.end() || fault->second.numSkipped-- > 0) continue;
    const int error = fault->second.error;
    if (!fault->second.stays) faults.erase(fault);
    return error;
  }
  return SUCCESS;
}

int refuse(const char *call, const std::string &why, int error) {
  book.illegal.push_back(std::string(call) + " " + why);
  return give(error);
}

static std::string quoted(const std::string &text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "\"";
}

static std::string json(const std::map<std::string, long> &counts) {
  std::string out = "{";
  for (const auto &[name, count] : counts) out += (out.size() > 1 ? "," : "") + quoted(name) + ":" + std::to_string(count);
  return out + "}";
}

static std::string json(const std::vector<std::string> &texts) {
  std::string out = "[";
  for (const auto &text : texts) out += (out.size() > 1 ? "," : "") + quoted(text);
  return out + "]";
}

}  // namespace device

using namespace device;

/* What tests ask. */

/** JSON, valid until the next call. */
EXPORT const char *simulated_cuda_book() {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  static std::string text;
  check_canaries();
  size_t numBlocks = 0, numBytes = 0;
  for (const auto &[_, block] : blocks) numBlocks++, numBytes += block.numBytes;
  std::map<std::string, long> held;
  for (const auto &[_, kind] : handles) held[kind]++;
  std::ostringstream out;
  out << "{\"calls\":" << json(book.calls) << ",\"launches\":" << json(book.launches) << ",\"copies\":" << json(book.copies)
      << ",\"copiedBytes\":" << json(book.copiedBytes) << ",\"illegal\":" << json(book.illegal)
      << ",\"unsupported\":" << json(book.unsupported) << ",\"captures\":" << book.captures << ",\"replays\":" << book.replays
      << ",\"synchronisations\":" << book.synchronisations << ",\"numBlocks\":" << numBlocks << ",\"numBytes\":" << numBytes
      << ",\"handles\":" << json(held) << "}";
  text = out.str();
  return text.c_str();
}

EXPORT void simulated_cuda_reset() {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  book = {};
  faults.clear();
}

/** The call of that name after the next `numSkipped` gives `error`; `*`: of any name. `stays`: so do all that follow. */
EXPORT void simulated_cuda_fail(const char *name, long numSkipped, int error, bool stays) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  faults[name] = {numSkipped, error, stays};
}

/** Which of them this thread's calls are made to from here on. `@returns` which it was */
EXPORT int simulated_cuda_use_runtime(int number) {
  const int before = runtime;
  runtime = number;
  return before;
}

/** What each thread has as the last error, of either runtime. */
EXPORT void simulated_cuda_forget_errors() { numForgets++; }

EXPORT void simulated_cuda_trace(bool on) { isTraced = on; }

/** For the functions that the provider imports and nothing here has: they fail, and the book names them. */
EXPORT int simulated_cuda_unsupported(const char *name) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  book.unsupported.push_back(name);
  return give(NOT_SUPPORTED);
}

/** A launch of our own: `call(kernel)` computes it, as often as it is replayed; `destroy(kernel)` when nothing refers to it. */
EXPORT int simulated_cuda_launch(void *stream, const char *name, void (*call)(void *), void *kernel, void (*destroy)(void *)) {
  std::shared_ptr<void> shared(kernel, destroy);
  ENTER(cudaLaunchKernel);
  return submit("cudaLaunchKernel", stream, {name, [shared, call] { call(shared.get()); }});
}

/* Launches of ONNX Runtime's kernels. */

EXPORT void **__cudaRegisterFatBinary(void *) {
  static void *handle;
  return &handle;
}
EXPORT void __cudaRegisterFatBinaryEnd(void **) {}
EXPORT void __cudaUnregisterFatBinary(void **) {}
EXPORT void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int) {}

EXPORT void __cudaRegisterFunction(void **, const char *host, char *, const char *name, int, void *, void *, void *, void *, int *) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  kernels[host] = name;
}

struct Dim3 {
  unsigned x, y, z;
};

static thread_local struct {
  Dim3 grid, block;
  size_t sharedBytes;
  void *stream;
} configuration;

EXPORT unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t sharedBytes, void *stream) {
  configuration = {grid, block, sharedBytes, stream};
  return 0;
}

EXPORT int __cudaPopCallConfiguration(Dim3 *grid, Dim3 *block, size_t *sharedBytes, void **stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *sharedBytes = configuration.sharedBytes;
  *stream = configuration.stream;
  return SUCCESS;
}

static int launch(const char *call, const void *kernel, Dim3 grid, Dim3 block, void *stream) {
  const auto known = kernels.find(kernel);
  const std::string name = known == kernels.end() ? "unknown kernel" : known->second;
  const size_t numThreads = (size_t)block.x * block.y * block.z;
  if (numThreads == 0 || numThreads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    return refuse(call, name + " with a grid or block of a size that is refused", INVALID_VALUE);
  }
  return submit(call, stream, {name, [] {}});
}

EXPORT int cudaLaunchKernel(const void *kernel, Dim3 grid, Dim3 block, void **, size_t, void *stream) {
  ENTER(cudaLaunchKernel);
  return launch("cudaLaunchKernel", kernel, grid, block, stream);
}

EXPORT int __cudaLaunchKernel(const void *kernel, Dim3 grid, Dim3 block, void **, size_t, void *stream) {
  ENTER(cudaLaunchKernel);
  return launch("cudaLaunchKernel", kernel, grid, block, stream);
}

EXPORT int __cudaGetKernel(void **out, const void *host) {
  *out = (void *)host;
  return SUCCESS;
}

EXPORT int cudaLaunchCooperativeKernel(const void *kernel, Dim3 grid, Dim3 block, void **, size_t, void *stream) {
  ENTER(cudaLaunchKernel);
  return launch("cudaLaunchCooperativeKernel", kernel, grid, block, stream);
}

struct LaunchConfiguration {
  Dim3 grid, block;
  size_t sharedBytes;
  void *stream;
};

EXPORT int cudaLaunchKernelExC(const LaunchConfiguration *c, const void *kernel, void **) {
  ENTER(cudaLaunchKernel);
  return launch("cudaLaunchKernelExC", kernel, c->grid, c->block, c->stream);
}

/* Properties: an H200's, with 8 GiB. */

EXPORT int cudaGetDeviceCount(int *count) {
  ENTER(cudaGetDeviceCount);
  *count = 1;
  return SUCCESS;
}

EXPORT int cudaGetDevice(int *number) {
  ENTER(cudaGetDevice);
  *number = 0;
  return SUCCESS;
}

EXPORT int cudaSetDevice(int number) {
  ENTER(cudaSetDevice);
  return number == 0 ? SUCCESS : give(INVALID_VALUE);
}

/** `struct cudaDeviceProp` of CUDA 13, by the places of its fields. */
EXPORT int cudaGetDeviceProperties(char *properties, int) {
  ENTER(cudaGetDeviceProperties);
  memset(properties, 0, 1008);
  const auto put = [&](size_t place, auto value) { memcpy(properties + place, &value, sizeof value); };
  strcpy(properties, "Simulated device");
  put(288, size_t(8) << 30); /* totalGlobalMem */
  put(296, size_t(49152));   /* sharedMemPerBlock */
  put(304, 65536);           /* regsPerBlock */
  put(308, 32);              /* warpSize */
  put(320, 1024);            /* maxThreadsPerBlock */
  for (const int i : {0, 1}) put(324 + 4 * i, 1024);
  put(332, 64);
  put(336, 2147483647); /* maxGridSize */
  for (const int i : {1, 2}) put(336 + 4 * i, 65535);
  put(352, size_t(65536)); /* totalConstMem */
  put(360, 9);             /* major */
  put(384, 132);           /* multiProcessorCount */
  put(588, 1);             /* unifiedAddressing */
  put(596, 52428800);      /* l2CacheSize */
  put(604, 2048);          /* maxThreadsPerMultiProcessor */
  put(624, size_t(233472)); /* sharedMemPerMultiprocessor */
  put(632, 65536);         /* regsPerMultiprocessor */
  put(668, 1);             /* cooperativeLaunch */
  put(672, size_t(232448)); /* sharedMemPerBlockOptin */
  put(688, 32);            /* maxBlocksPerMultiProcessor */
  put(720, 1);             /* memoryPoolsSupported */
  return SUCCESS;
}

EXPORT int cudaDeviceGetAttribute(int *value, int attribute, int) {
  ENTER(cudaDeviceGetAttribute);
  static const std::map<int, int> values = {{1, 1024}, {8, 49152}, {10, 32}, {16, 132}, {39, 2048}, {75, 9}, {76, 0}, {81, 233472}, {97, 232448}};
  const auto known = values.find(attribute);
  *value = known == values.end() ? 1 : known->second;
  return SUCCESS;
}

EXPORT int cudaRuntimeGetVersion(int *version) {
  ENTER(cudaRuntimeGetVersion);
  *version = 13000;
  return SUCCESS;
}

EXPORT int cudaDriverGetVersion(int *version) {
  ENTER(cudaDriverGetVersion);
  *version = 13000;
  return SUCCESS;
}

EXPORT int cudaGetDriverEntryPointByVersion(const char *, void **out, unsigned, unsigned long long, int *found) {
  ENTER(cudaGetDriverEntryPointByVersion);
  *out = nullptr;
  if (found != nullptr) *found = 1; /* not found */
  return SUCCESS;
}

EXPORT int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *, int, size_t, unsigned) {
  ENTER(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags);
  *count = 2;
  return SUCCESS;
}

EXPORT int cudaFuncSetAttribute(const void *, int, int) {
  ENTER(cudaFuncSetAttribute);
  return SUCCESS;
}

EXPORT int cudaFuncGetAttributes(char *attributes, const void *) {
  ENTER(cudaFuncGetAttributes);
  memset(attributes, 0, 144);
  const auto put = [&](size_t place, int value) { memcpy(attributes + place, &value, sizeof value); };
  put(24, 1024); /* maxThreadsPerBlock */
  put(28, 32);   /* numRegs */
  put(32, 90);   /* ptxVersion */
  put(36, 90);   /* binaryVersion */
  return SUCCESS;
}

EXPORT int cudaGetLastError() {
  const int error = last_error();
  last_error() = SUCCESS;
  return error;
}

EXPORT int cudaPeekAtLastError() { return last_error(); }

EXPORT const char *cudaGetErrorName(int error) {
  static thread_local std::string name;
  name = "cudaError" + std::to_string(error);
  return name.c_str();
}

EXPORT const char *cudaGetErrorString(int error) {
  switch (error) {
    case SUCCESS: return "no error";
    case OUT_OF_MEMORY: return "out of memory";
    case NO_KERNEL_IMAGE: return "no kernel image is available for execution on the device";
    case CAPTURE_UNSUPPORTED: return "operation not permitted when stream is capturing";
    case CAPTURE_INVALIDATED: return "operation failed due to a previous error during capture";
    default: return cudaGetErrorName(error);
  }
}

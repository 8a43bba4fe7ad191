/**
 * Counts what ONNX Runtime's CUDA provider asks of CUDA's runtime: to be preloaded (LD_PRELOAD).
 * Copies that cross the bus with their bytes, and waits of the host. Calls of others are passed on
 * uncounted. Built by scripts/gpu-check.sh, read by check.ts.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

enum { HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2 };

static atomic_ullong numBytes, numCopies, numWaits;

unsigned long long counted_bytes(void) { return numBytes; }
unsigned long long counted_copies(void) { return numCopies; }
unsigned long long counted_waits(void) { return numWaits; }

/** Not the next one in order: who loads the runtime does not share its names. */
static void *real(const char *name) {
  void *runtime = dlopen("libcudart.so.13", RTLD_LAZY | RTLD_NOLOAD);
  return runtime == NULL ? NULL : dlsym(runtime, name);
}

static int is_provider(const void *caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && info.dli_fname != NULL && strstr(info.dli_fname, "providers_cuda") != NULL;
}

static void count_copy(const void *caller, size_t bytes, int kind) {
  if (!is_provider(caller) || (kind != HOST_TO_DEVICE && kind != DEVICE_TO_HOST)) return;
  numBytes += bytes;
  numCopies++;
}

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
  count_copy(__builtin_return_address(0), bytes, kind);
  if (is_provider(__builtin_return_address(0))) numWaits++;
  return ((int (*)(void *, const void *, size_t, int))real("cudaMemcpy"))(to, from, bytes, kind);
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
  count_copy(__builtin_return_address(0), bytes, kind);
  return ((int (*)(void *, const void *, size_t, int, void *))real("cudaMemcpyAsync"))(to, from, bytes, kind, stream);
}

int cudaStreamSynchronize(void *stream) {
  if (is_provider(__builtin_return_address(0))) numWaits++;
  return ((int (*)(void *))real("cudaStreamSynchronize"))(stream);
}

int cudaEventSynchronize(void *event) {
  if (is_provider(__builtin_return_address(0))) numWaits++;
  return ((int (*)(void *))real("cudaEventSynchronize"))(event);
}

int cudaDeviceSynchronize(void) {
  if (is_provider(__builtin_return_address(0))) numWaits++;
  return ((int (*)(void))real("cudaDeviceSynchronize"))();
}

/** cuBLAS's other library: sessions open it, and our graphs ask it for nothing. */
#include "device.h"

EXPORT int cublasLtCreate(void **handle) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  *handle = new char;
  device::hold("cublasLt", *handle);
  return 0;
}

EXPORT int cublasLtDestroy(void *handle) {
  std::lock_guard<std::recursive_mutex> lock(device::mutex);
  if (device::drop("cublasLtDestroy", "cublasLt", handle) != 0) return 1;
  delete (char *)handle;
  return 0;
}

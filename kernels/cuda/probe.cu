/** Whether this library can be used here, for the program that loads it. */
#include "device.h"

#ifndef DM_WITHOUT_DEVICE

namespace {
__global__ void do_nothing() {}

/** There is no machine code for the device, and no PTX that its driver can translate. */
bool lacks_code(cudaError_t error) {
  return error == cudaErrorInvalidDeviceFunction || error == cudaErrorInvalidKernelImage ||
         error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidPtx || error == cudaErrorUnsupportedPtxVersion;
}
}  // namespace

/** Why the device cannot run what is compiled here; NULL if it can, or if that cannot be told. */
extern "C" __attribute__((visibility("default"))) const char *densemamba_cuda_missing_code(void) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, do_nothing);
  if (error != cudaSuccess) (void)cudaGetLastError(); /* or the next launch is told of it */
  return lacks_code(error) ? cudaGetErrorString(error) : NULL;
}

#endif

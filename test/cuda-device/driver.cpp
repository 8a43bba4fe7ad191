/**
 * The driver, as far as it is asked what it is. Stands alone, for machines that have a driver and nothing else of CUDA's; what it says
 * comes from the environment, so that a program that is started can be told.
 */
#include <cstdlib>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

static int setting(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text == nullptr ? otherwise : atoi(text);
}

EXPORT int cuInit(unsigned) { return setting("SIMULATED_DRIVER_ERROR", 0); }

EXPORT int cuDriverGetVersion(int *version) {
  *version = setting("SIMULATED_DRIVER_VERSION", 13000);
  return 0;
}

EXPORT int cuDeviceGetCount(int *count) {
  *count = setting("SIMULATED_DRIVER_DEVICES", 1);
  return 0;
}

EXPORT int cuDeviceGetName(char *name, int numBytes, int) {
  strncpy(name, "Simulated device", numBytes);
  return 0;
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int) {
  const int capability = setting("SIMULATED_CAPABILITY", 90);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
  return 0;
}

EXPORT int cuGetErrorString(int error, const char **text) {
  *text = error == 803 ? "system has unsupported display driver / cuda driver combination" : "unknown error";
  return 0;
}

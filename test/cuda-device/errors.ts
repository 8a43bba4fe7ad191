/** CUDA's numbers of errors that tests inject or expect. */
export const OUT_OF_MEMORY = 2;
/** Of a device that another process holds, or that has gone. */
export const DEVICE_UNAVAILABLE = 46;
/** Of a library that was compiled for other devices. */
export const NO_KERNEL_IMAGE = 209;
/** Of a stream that has not come to its end: no error. */
export const NOT_READY = 600;
/** Of a call that failed for once. */
export const UNKNOWN = 999;
/** After it nothing works in this process. */
export const LAUNCH_FAILED = 719;
export const CAPTURE_UNSUPPORTED = 900;
export const CAPTURE_INVALIDATED = 901;

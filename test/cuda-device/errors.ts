/** CUDA's numbers of errors that tests inject or expect. */
export const OUT_OF_MEMORY = 2;
export const LAUNCH_FAILED = 719;
export const CAPTURE_UNSUPPORTED = 900;
export const CAPTURE_INVALIDATED = 901;

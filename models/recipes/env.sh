# Source before training on a CPU.
# glibc returns large blocks to the system and faults them in again, page by page, in every step: half of the time, unless told to keep them.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=536870912
# One thread a matrix product: train.py runs shards of the batch side by side instead.
export OMP_NUM_THREADS=1 BLIS_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

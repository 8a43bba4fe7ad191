/**
 * Packed matrices: 16 rows lie together, four columns (of 8 bits) or eight (of 4) of each at a
 * time. docs/kernels.md.
 */
#ifndef DENSEMAMBA_TILES_H
#define DENSEMAMBA_TILES_H

#include <stddef.h>

enum { DM_TILE = 16 };

static inline size_t dm_num_tiles(size_t numRows) { return (numRows + DM_TILE - 1) / DM_TILE; }

#endif

#include "tile.cuh"

TILES(bf16, bf16, 2)

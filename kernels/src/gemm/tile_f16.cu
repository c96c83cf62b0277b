#include "tile.cuh"

TILES(f16, f16, 2)

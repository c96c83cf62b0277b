#include "tile.cuh"

TILES(f32, float, 1)

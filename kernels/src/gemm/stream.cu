#include "stream.cuh"

STREAMS(f16, f16)
STREAMS(bf16, bf16)

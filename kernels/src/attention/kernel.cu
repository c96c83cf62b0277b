// The kernels of attention; cuda/path.rs chooses among them.
#include "decode.cuh"
#include "decode_bulk.cuh"
#include "general.cuh"
#include "latent.cuh"
#include "prefill.cuh"

#define GENERAL(NAME, T)                                                             \
  extern "C" __global__ void __launch_bounds__(GENERAL_THREADS, 8) NAME(ATTEND_PARAMETERS) { \
    attend_general<T>(ATTEND_OPERANDS);                                              \
  }
GENERAL(attend_general_f32, float)
GENERAL(attend_general_f16, f16)
GENERAL(attend_general_bf16, bf16)

#define DECODE(GROUPS, BLOCK, NAME, T)                                                              \
  extern "C" __global__ void __launch_bounds__(BLOCK, 2)                                            \
      NAME(ATTEND_PARAMETERS, float *partials, unsigned *arrivals) {                                \
    static_assert(BLOCK == DecodeShape<GROUPS>::THREADS, "the table of cuda/path.rs");            \
    attend_decode<T, GROUPS>(ATTEND_OPERANDS, partials, arrivals);                                  \
  }
DECODE(1, 128, attend_decode_1_f16, f16)
DECODE(1, 128, attend_decode_1_bf16, bf16)
DECODE(2, 128, attend_decode_2_f16, f16)
DECODE(2, 128, attend_decode_2_bf16, bf16)
DECODE(3, 128, attend_decode_3_f16, f16)
DECODE(3, 128, attend_decode_3_bf16, bf16)
DECODE(4, 128, attend_decode_4_f16, f16)
DECODE(4, 128, attend_decode_4_bf16, bf16)

#if HAS_SM90A
#define BULK_BODY(GROUPS, T) attend_decode_bulk<T, GROUPS>(ATTEND_OPERANDS, partials, arrivals)
#else
#define BULK_BODY(GROUPS, T)
#endif
#define DECODE_BULK(GROUPS, NAME, T)                                        \
  extern "C" __global__ void __launch_bounds__(160)                         \
      NAME(ATTEND_PARAMETERS, float *partials, unsigned *arrivals) {        \
    BULK_BODY(GROUPS, T);                                                   \
  }
DECODE_BULK(1, attend_decode_bulk_1_f16, f16)
DECODE_BULK(1, attend_decode_bulk_1_bf16, bf16)
DECODE_BULK(2, attend_decode_bulk_2_f16, f16)
DECODE_BULK(2, attend_decode_bulk_2_bf16, bf16)
DECODE_BULK(3, attend_decode_bulk_3_f16, f16)
DECODE_BULK(3, attend_decode_bulk_3_bf16, bf16)
DECODE_BULK(4, attend_decode_bulk_4_f16, f16)
DECODE_BULK(4, attend_decode_bulk_4_bf16, bf16)

#define PREFILL(DIM, ROWS, NAME, T)                                                              \
  extern "C" __global__ void __launch_bounds__(2 * ROWS, 1) NAME(ATTEND_PARAMETERS) {               \
    attend_prefill<T, DIM, ROWS>(ATTEND_OPERANDS);                                               \
  }
PREFILL(64, 128, attend_prefill_64_f16, f16)
PREFILL(64, 128, attend_prefill_64_bf16, bf16)
PREFILL(80, 128, attend_prefill_80_f16, f16)
PREFILL(80, 128, attend_prefill_80_bf16, bf16)
PREFILL(96, 128, attend_prefill_96_f16, f16)
PREFILL(96, 128, attend_prefill_96_bf16, bf16)
PREFILL(128, 128, attend_prefill_128_f16, f16)
PREFILL(128, 128, attend_prefill_128_bf16, bf16)
PREFILL(192, 64, attend_prefill_192_f16, f16)
PREFILL(192, 64, attend_prefill_192_bf16, bf16)
PREFILL(256, 64, attend_prefill_256_f16, f16)
PREFILL(256, 64, attend_prefill_256_bf16, bf16)

#define LATENT(ROW_TILES, DECODE_NAME, PREFILL_NAME, T)                                       \
  extern "C" __global__ void __launch_bounds__(256, 1)                                        \
      DECODE_NAME(ATTEND_PARAMETERS, float *partials, unsigned *arrivals) {                   \
    attend_latent_decode<T, ROW_TILES>(ATTEND_OPERANDS, partials, arrivals);                  \
  }                                                                                           \
  extern "C" __global__ void __launch_bounds__(256, 1) PREFILL_NAME(ATTEND_PARAMETERS) {         \
    attend_latent_prefill<T, ROW_TILES>(ATTEND_OPERANDS);                                     \
  }
LATENT(1, attend_latent_decode_16_f16, attend_latent_prefill_16_f16, f16)
LATENT(1, attend_latent_decode_16_bf16, attend_latent_prefill_16_bf16, bf16)
LATENT(4, attend_latent_decode_64_f16, attend_latent_prefill_64_f16, f16)
LATENT(4, attend_latent_decode_64_bf16, attend_latent_prefill_64_bf16, bf16)

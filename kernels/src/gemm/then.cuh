// What becomes of a product, by the numbers that `then_args` gives it.
#pragma once
#include "../activation/activation.cuh"

struct Then {
  int kind;   // 0 store, 1 add to the output, 2 activate, 3 activate gates and multiply with ups
  float scale;
  Activation activation;
};

constexpr int THEN_GATED = 3;

// Writes a product with its bias; `up` is read only after gates.
template <class Out>
__device__ __forceinline__ void write_product(const Then& then, Out* out, float product, float up) {
  switch (then.kind) {
    case 0: *out = from_float<Out>(product); break;
    case 1: *out = from_float<Out>(to_float(*out) + then.scale * product); break;
    default: *out = from_float<Out>(activated(then.activation, product, then.kind == THEN_GATED ? up : 1.0f));
  }
}

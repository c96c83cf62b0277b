// Activation functions, by the numbers that `Activation::args` gives them.
#pragma once

struct Activation {
  int kind;
  // Parameters: of kind 5 a limit; of kind 6 alpha_p, alpha_n, beta.
  float a, b, c;
};

// act(gate) · up. NaN stays NaN.
__device__ __forceinline__ float activated(const Activation& of, float gate, float up) {
  switch (of.kind) {
  case 0: // Silu
    return gate / (1.0f + expf(-gate)) * up;
  case 1: // Gelu: erfc keeps its precision where 1 + erf cancels
    return 0.5f * gate * erfcf(-0.70710678f * gate) * up;
  case 2: { // GeluTanh
    float u = 0.79788456f * (gate + 0.044715f * gate * gate * gate);
    return gate / (1.0f + expf(-2.0f * u)) * up;
  }
  case 3: // Relu
    return (gate < 0.0f ? 0.0f : gate) * up;
  case 4: // SquaredRelu
    return (gate < 0.0f ? 0.0f : gate * gate) * up;
  case 5: { // ClampedSwiglu
    float g = gate > of.a ? of.a : gate;
    float u = up > of.a ? of.a : up < -of.a ? -of.a : up;
    return (u + 1.0f) * (g / (1.0f + expf(-1.702f * g)));
  }
  default: { // Xielu
    float curve = gate > 0.0f ? of.a * gate * gate : of.b * (expm1f(gate) - gate);
    return (curve + of.c * gate) * up;
  }
  }
}

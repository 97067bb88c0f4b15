// Partial states and their folds. Included by kernels alone.
#pragma once

#include "attention_kernel.h"
#include "attention_simd.h"

namespace thoth::THOTH_ISA {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;
constexpr float kInfinity = __builtin_inff();

// A row over one tile or a fold of tiles: o before it is divided by the sum, then the largest
// score and the sum of 2^(score - largest). A sum of 0 is the unit, whatever else stands there.
struct State {
  float* o;
  int head_dim;

  float& top() const { return o[head_dim]; }
  float& sum() const { return o[head_dim + 1]; }
};

// into[d] = into[d] * weight + other[d] * other_weight
THOTH_INLINE void blend(float* into, float weight, const float* other, float other_weight,
                        int head_dim) {
  int d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) {
    const Vec kept = load(into + d) * broadcast(weight);
    store(into + d, multiply_add(load(other + d), broadcast(other_weight), kept));
  }
  for (; d < head_dim; ++d) into[d] = multiply_add(other[d], other_weight, into[d] * weight);
}

// `into` becomes the state over its tiles and the one of `tile`. The unit changes no bit.
THOTH_INLINE void fold_tile(const State& into, const State& tile) {
  const int head_dim = into.head_dim;
  if (tile.sum() == 0.0f) return;
  if (into.sum() == 0.0f) {
    __builtin_memcpy(into.o, tile.o, sizeof(float) * static_cast<std::size_t>(head_dim + 2));
    return;
  }
  const float top = larger(into.top(), tile.top());
  const float weight = exp2_of(into.top() - top), tile_weight = exp2_of(tile.top() - top);
  blend(into.o, weight, tile.o, tile_weight, head_dim);
  into.sum() = multiply_add(tile.sum(), tile_weight, into.sum() * weight);
  into.top() = top;
}

// The state as (o, lse), lse to base e.
inline void finish(const State& state, float* o, float* lse) {
  const int head_dim = state.head_dim;
  const float sum = state.sum();
  if (sum == 0.0f) {
    for (int d = 0; d < head_dim; ++d) o[d] = 0.0f;
    *lse = -kInfinity;
    return;
  }
  for (int d = 0; d < head_dim; ++d) o[d] = state.o[d] / sum;
  *lse = multiply_add(state.top(), kLn2, __builtin_logf(sum));
}

// Folds the states of tiles, `stride` floats apart, into the first of them.
inline void fold(float* states, std::size_t stride, int num_tiles, int head_dim, float* o,
                 float* lse) {
  const State folded{states, head_dim};
  for (int tile = 1; tile < num_tiles; ++tile) {
    fold_tile(folded, {states + static_cast<std::size_t>(tile) * stride, head_dim});
  }
  finish(folded, o, lse);
}

// The same over segments, whose states are finished.
inline void merge(float* o, float* lse, const float* other_o, float other_lse, int head_dim) {
  if (other_lse == -kInfinity) return;
  if (*lse == -kInfinity) {
    __builtin_memcpy(o, other_o, sizeof(float) * static_cast<std::size_t>(head_dim));
    *lse = other_lse;
    return;
  }
  const float top = larger(*lse, other_lse);
  const float weight = exp2_of((*lse - top) * kLog2E);
  const float other_weight = exp2_of((other_lse - top) * kLog2E);
  const float sum = weight + other_weight;
  blend(o, weight / sum, other_o, other_weight / sum, head_dim);
  *lse = top + __builtin_logf(sum);
}

}  // namespace
}  // namespace thoth::THOTH_ISA

// The innermost loops: a few rows in registers against a few keys. Included by kernels alone.
//
// A template for each number of rows and each type of the cache, which is widened on its way into
// registers; none of them changes the chain of operations that makes a number.
#pragma once

#include "attention_kernel.h"
#include "attention_simd.h"

namespace thoth::THOTH_ISA {
namespace {

// 16 registers: the accumulators, the keys, a query. With 8 lanes 6 * 2 + 2 + 1.
constexpr int kMaxRows = kLanes >= 8 ? 6 : 3;
constexpr int kMaxWide = 4;

// Blocks that few rows take at once: a multiply-add takes 4 cycles and two start in each, so fewer
// than 8 chains leave it idle.
constexpr int wide_blocks(int rows) {
  if (kLanes < 8) return 1;
  return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}

// Elements of a value, in sixteens, that `rows` rows accumulate at once.
constexpr int value_sixteens(int rows) {
  if (kLanes < 8) return rows == 1 ? 2 : 1;
  return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}

template <int kRows, int kWide>
THOTH_INLINE void clear(Sixteen (&sums)[kRows][kWide]) {
  THOTH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    THOTH_UNROLL
    for (int i = 0; i < kWide; ++i) sums[r][i] = Sixteen{};
  }
}

// sum[r] += x[r * stride] * y, for every row.
template <int kRows, int kWide>
THOTH_INLINE void accumulate(Sixteen (&sums)[kRows][kWide], int i, const float* x, int stride,
                             const Sixteen& y) {
  // Keeps the compiler from holding the factors for the next `i`: one register more than there are.
  asm volatile("" : "+r"(x));
  THOTH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const Vec factor = broadcast(x[r * stride]);
    THOTH_UNROLL
    for (int j = 0; j < kSixteen; ++j) {
      sums[r][i].part[j] = multiply_add(factor, y.part[j], sums[r][i].part[j]);
    }
  }
}

// out[r][t] = sum over d of q[d][r] * keys[d][t], for the 16 keys of each of kWide blocks.
template <int kRows, int kWide, typename T>
void score(const float* q, const T* const* blocks, const T* const* ahead, int head_dim, float* out,
           int stride) {
  Sixteen sums[kRows][kWide];
  clear(sums);
#pragma GCC unroll 2
  for (int d = 0; d < head_dim; ++d) {
    THOTH_UNROLL
    for (int b = 0; b < kWide; ++b) {
      prefetch(ahead[b] + d * kBlockTokens);
      accumulate(sums, b, q + d * kRows, 1, load_sixteen(blocks[b] + d * kBlockTokens));
    }
  }
  THOTH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    THOTH_UNROLL
    for (int b = 0; b < kWide; ++b) {
      store_sixteen(out + r * stride + b * kBlockTokens, in_order(*blocks, sums[r][b]));
    }
  }
}

template <int kRows, typename T>
THOTH_INLINE void score_blocks(const float* q, int num_blocks, const T* const* blocks,
                               const T* const* ahead, int head_dim, float* out, int stride) {
  constexpr int kWide = wide_blocks(kRows);
  if (num_blocks == kWide) return score<kRows, kWide>(q, blocks, ahead, head_dim, out, stride);
  for (int b = 0; b < num_blocks; ++b) {
    score<kRows, 1>(q, blocks + b, ahead + b, head_dim, out + b * kBlockTokens, stride);
  }
}

// `rows` rows against at most `wide_blocks(rows)` blocks.
template <typename T>
void score_rows(int rows, int num_blocks, const float* q, const T* const* blocks,
                const T* const* ahead, int head_dim, float* out, int stride) {
  switch (rows) {
    case 1: return score_blocks<1>(q, num_blocks, blocks, ahead, head_dim, out, stride);
    case 2: return score_blocks<2>(q, num_blocks, blocks, ahead, head_dim, out, stride);
    case 3: return score_blocks<3>(q, num_blocks, blocks, ahead, head_dim, out, stride);
    default: break;
  }
  if constexpr (kMaxRows > 3) {
    switch (rows) {
      case 4: return score_blocks<4>(q, num_blocks, blocks, ahead, head_dim, out, stride);
      case 5: return score_blocks<5>(q, num_blocks, blocks, ahead, head_dim, out, stride);
      default: return score_blocks<6>(q, num_blocks, blocks, ahead, head_dim, out, stride);
    }
  }
}

// The largest of `count` scores, a multiple of 16. Keys that are not seen score -inf.
THOTH_INLINE float largest_score(const float* s, int count) {
  Vec tops[kSixteen];
  for (Vec& top : tops) top = broadcast(-__builtin_inff());
  for (int t = 0; t < count; t += kBlockTokens) {
    THOTH_UNROLL
    for (int i = 0; i < kSixteen; ++i) tops[i] = larger(tops[i], load(s + t + i * kLanes));
  }
  for (int i = 1; i < kSixteen; ++i) tops[0] = larger(tops[0], tops[i]);
  return largest_of(tops[0]);
}

// Scores become 2^(score - top); returns their sum. It is 0 where all scores are -inf, and NaN
// comes through.
THOTH_INLINE float weigh_scores(float* s, int count, float top) {
  const Vec pivot = broadcast(top == -__builtin_inff() ? 0.0f : top);
  Vec sums[kSixteen];
  for (Vec& sum : sums) sum = Vec{};
  for (int t = 0; t < count; t += kBlockTokens) {
    THOTH_UNROLL
    for (int i = 0; i < kSixteen; ++i) {
      const Vec weight = exp2_of(load(s + t + i * kLanes) - pivot);
      store(s + t + i * kLanes, weight);
      sums[i] += weight;
    }
  }
  for (int i = 1; i < kSixteen; ++i) sums[0] += sums[i];
  return sum_of(sums[0]);
}

// Weights of a few rows for the first `num_keys` keys of a group of blocks.
struct Weights {
  const float* first;
  int stride;
  int num_keys;
  bool clears;  // o starts at 0 instead of where it was
};

// o[r][d] += sum over t of weights[r][t] * values[t][d], for kWide sixteens of elements from `d` on.
template <int kRows, int kWide, typename T>
THOTH_INLINE void sum_values(const Weights& weights, const T* const* blocks, const T* const* ahead,
                             int head_dim, int d, float* o, int o_stride) {
  Sixteen sums[kRows][kWide];
  clear(sums);
  if (!weights.clears) {
    THOTH_UNROLL
    for (int r = 0; r < kRows; ++r) {
      THOTH_UNROLL
      for (int i = 0; i < kWide; ++i) {
        sums[r][i] = as_loaded(*blocks, load_sixteen(o + r * o_stride + d + i * 16));
      }
    }
  }
  const float* p = weights.first;
  const T* const* const first = blocks;
  for (int left = weights.num_keys; left > 0; left -= kBlockTokens, ++blocks, ++ahead) {
    const T* values = *blocks + d;
    const T* next = *ahead + d * kBlockTokens;  // in the order of memory
    const int count = left < kBlockTokens ? left : kBlockTokens;
#pragma GCC unroll 2
    for (int t = 0; t < count; ++t, ++p, values += head_dim, next += kWide * 16) {
      THOTH_UNROLL
      for (int i = 0; i < kWide; ++i) {
        prefetch(next + i * 16);
        accumulate(sums, i, p, weights.stride, load_sixteen(values + i * 16));
      }
    }
  }
  THOTH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    THOTH_UNROLL
    for (int i = 0; i < kWide; ++i) {
      store_sixteen(o + r * o_stride + d + i * 16, in_order(*first, sums[r][i]));
    }
  }
}

// The same chain for one element: what is left of a head that no vector divides.
template <typename T>
void sum_element(const Weights& weights, const T* const* blocks, int head_dim, int d, float* o) {
  float sum = weights.clears ? 0.0f : o[d];
  for (int t = 0; t < weights.num_keys; ++t) {
    const T* value = blocks[t / kBlockTokens] + (t % kBlockTokens) * head_dim + d;
    sum = multiply_add(weights.first[t], load_one(value), sum);
  }
  o[d] = sum;
}

template <int kRows, typename T>
void sum_all_values(const Weights& weights, const T* const* blocks, const T* const* ahead,
                    int head_dim, float* o, int o_stride) {
  constexpr int kWide = value_sixteens(kRows);
  int d = 0;
  for (; d + kWide * 16 <= head_dim; d += kWide * 16) {
    sum_values<kRows, kWide>(weights, blocks, ahead, head_dim, d, o, o_stride);
  }
  if constexpr (kWide > 1) {
    for (; d + 16 <= head_dim; d += 16) {
      sum_values<kRows, 1>(weights, blocks, ahead, head_dim, d, o, o_stride);
    }
  }
  for (; d < head_dim; ++d) {
    for (int r = 0; r < kRows; ++r) {
      Weights row = weights;
      row.first += r * weights.stride;
      sum_element(row, blocks, head_dim, d, o + r * o_stride);
    }
  }
}

template <typename T>
void sum_rows(int rows, const Weights& weights, const T* const* blocks, const T* const* ahead,
              int head_dim, float* o, int o_stride) {
  switch (rows) {
    case 1: return sum_all_values<1>(weights, blocks, ahead, head_dim, o, o_stride);
    case 2: return sum_all_values<2>(weights, blocks, ahead, head_dim, o, o_stride);
    case 3: return sum_all_values<3>(weights, blocks, ahead, head_dim, o, o_stride);
    default: break;
  }
  if constexpr (kMaxRows > 3) {
    switch (rows) {
      case 4: return sum_all_values<4>(weights, blocks, ahead, head_dim, o, o_stride);
      case 5: return sum_all_values<5>(weights, blocks, ahead, head_dim, o, o_stride);
      default: return sum_all_values<6>(weights, blocks, ahead, head_dim, o, o_stride);
    }
  }
}

// o += weight * value: one key for one row.
template <typename T>
void add_value(float weight, const T* value, int head_dim, float* o) {
  int d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) {
    store(o + d, multiply_add(broadcast(weight), load(value + d), load(o + d)));
  }
  for (; d < head_dim; ++d) o[d] = multiply_add(weight, load_one(value + d), o[d]);
}

}  // namespace
}  // namespace thoth::THOTH_ISA

// Rows times a panel. A strip of up to 6 rows by 16 outputs is what 16 registers of 8 hold: 12
// sums, 2 of weights, and what is being multiplied.
#include "linear_kernels.h"
#include "linear_parts.h"
#include "linear_prefetch.h"
#include "linear_vector.h"

namespace thoth::THOTH_ISA {
namespace {

constexpr int kStripRows = 6;

// Every loop over R is unrolled from the start, or the compiler keeps the sums in memory.
template <int R, typename Ahead>
void float_strip(FloatRows x, const float* weights, int inputs, bool add, float* tile,
                 Ahead ahead) {
  Floats sums[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Floats{};
#pragma GCC unroll 4
  for (int i = 0; i < inputs; ++i, weights += kPanel) {
    const auto low = load<Floats>(weights);
    const auto high = load<Floats>(weights + 8);
    ahead.step();
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const Floats value = splat(x.values[r * x.stride + i]);
      sums[r][0] = fma(value, low, sums[r][0]);
      sums[r][1] = fma(value, high, sums[r][1]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r, tile += kPanel) {
    save(tile, add ? load<Floats>(tile) + sums[r][0] : sums[r][0]);
    save(tile + 8, add ? load<Floats>(tile + 8) + sums[r][1] : sums[r][1]);
  }
}

// What a pair of levels gives with the 8 outputs of `weights` [8][2], added to sums.
#if defined(__AVX2__)
using Pairs = __m256i;

THOTH_INLINE Pairs widened(const std::int8_t* weights) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights)));
}

THOTH_INLINE Pairs splat_pair(const std::int16_t* levels) {
  std::int32_t pair;
  std::memcpy(&pair, levels, sizeof pair);
  return _mm256_set1_epi32(pair);
}

THOTH_INLINE Ints add_products(Pairs levels, Pairs weights, Ints sums) {
  return sums + reinterpret_cast<Ints>(_mm256_madd_epi16(levels, weights));
}
#else
struct Pairs {
  Ints even, odd;
};

THOTH_INLINE Pairs widened(const std::int8_t* weights) {
  Pairs pairs;
  for (int o = 0; o < 8; ++o) {
    pairs.even[o] = weights[2 * o];
    pairs.odd[o] = weights[2 * o + 1];
  }
  return pairs;
}

THOTH_INLINE Pairs splat_pair(const std::int16_t* levels) {
  return {Ints{} + levels[0], Ints{} + levels[1]};
}

THOTH_INLINE Ints add_products(Pairs levels, Pairs weights, Ints sums) {
  return sums + (levels.even * weights.even + levels.odd * weights.odd);
}
#endif

template <int R, typename Ahead>
void int8_strip(LevelRows x, const std::int8_t* weights, const float* scales, int pairs,
                float* tile, Ahead ahead) {
  Ints sums[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Ints{};
#pragma GCC unroll 4
  for (int i = 0; i < pairs; ++i, weights += 2 * kPanel) {
    const Pairs low = widened(weights);
    const Pairs high = widened(weights + kPanel);
    ahead.step();
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const Pairs value = splat_pair(x.levels + r * x.stride + 2 * i);
      sums[r][0] = add_products(value, low, sums[r][0]);
      sums[r][1] = add_products(value, high, sums[r][1]);
    }
  }
  const auto low = load<Floats>(scales);
  const auto high = load<Floats>(scales + 8);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r, tile += kPanel) {
    save(tile, to_floats(sums[r][0]) * low * x.scales[r]);
    save(tile + 8, to_floats(sums[r][1]) * high * x.scales[r]);
  }
}

template <int N>
struct Size {
  static constexpr int rows = N;
};

// Calls strip(first, Size<n>, ahead) for n rows from `first` on until all rows have had their turn:
// strips as equal as can be, because a lone row waits for its own last sum. `weights` of `size`
// bytes are read by every strip, `line` bytes at a time.
template <typename Strip>
THOTH_INLINE void in_strips(int rows, const void* weights, long size, long line, Strip strip) {
  const auto one = [&](int first, int count, auto ahead) {
    switch (count) {
      case 1: strip(first, Size<1>{}, ahead); break;
      case 2: strip(first, Size<2>{}, ahead); break;
      case 3: strip(first, Size<3>{}, ahead); break;
      case 4: strip(first, Size<4>{}, ahead); break;
      case 5: strip(first, Size<5>{}, ahead); break;
      default: strip(first, Size<6>{}, ahead); break;
    }
  };
  if (rows <= kStripRows) {
    one(0, rows, Near(weights, line));
    return;
  }
  int left = (rows + kStripRows - 1) / kStripRows;
  for (int first = 0; first < rows; --left) {
    const int count = (rows - first + left - 1) / left;
    one(first, count, Shared(weights, size, line, first, count, rows));
    first += count;
  }
}

}  // namespace

void multiply_float(FloatRows x, int rows, const float* panel, int inputs, float* tile) {
  constexpr long kLine = kPanel * sizeof(float);
  const int num_blocks = (inputs + kFloatInputs - 1) / kFloatInputs;
  const int block = (inputs + num_blocks - 1) / num_blocks;
  for (int start = 0; start < inputs; start += block) {
    const int size = inputs - start < block ? inputs - start : block;
    const float* weights = panel + static_cast<long>(start) * kPanel;
    in_strips(rows, weights, size * kLine, kLine, [&](int first, auto strip, auto ahead) {
      float_strip<strip.rows>({x.values + first * x.stride + start, x.stride}, weights, size,
                              start > 0, tile + first * kPanel, ahead);
    });
  }
}

void multiply_int8(LevelRows x, int rows, const std::int8_t* panel, const float* scales, int pairs,
                   float* tile) {
  constexpr long kLine = 2 * kPanel;
  in_strips(rows, panel, pairs * kLine, kLine, [&](int first, auto strip, auto ahead) {
    int8_strip<strip.rows>({x.levels + first * x.stride, x.stride, x.scales + first}, panel, scales,
                           pairs, tile + first * kPanel, ahead);
  });
}

}  // namespace thoth::THOTH_ISA

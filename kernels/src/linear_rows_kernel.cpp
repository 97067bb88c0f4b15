// What is done to one row at a time. Sums run in eight lanes, which are added in a fixed order.
#include "linear_kernels.h"
#include "linear_parts.h"
#include "linear_vector.h"

namespace thoth::THOTH_ISA {
namespace {

// Below this a row's inverse scale would overflow; what it could add to anything is far below
// float32's rounding of it.
constexpr float kSmallest = 0x1p-96f;

THOTH_INLINE float magnitude(float x) { return x < 0 ? -x : x; }

struct Extent {
  float largest;
  // 0, or NaN when an element is not finite: the largest alone would pass over a NaN.
  float zero;
};

THOTH_INLINE Extent extent(const float* x, int count) {
  Floats largest{};
  Floats zero{};
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    const auto values = load<Floats>(x + i);
    largest = larger(larger(values, -values), largest);
    zero += values * 0.0f;
  }
  Extent found{0.0f, total(zero)};
  for (int lane = 0; lane < 8; ++lane) {
    if (largest[lane] > found.largest) found.largest = largest[lane];
  }
  for (; i < count; ++i) {
    if (magnitude(x[i]) > found.largest) found.largest = magnitude(x[i]);
    found.zero += x[i] * 0.0f;
  }
  return found;
}

THOTH_INLINE float square_sum(const float* x, int count) {
  Floats sums[4]{};
  int i = 0;
  for (; i + 32 <= count; i += 32) {
    for (int j = 0; j < 4; ++j) {
      const auto values = load<Floats>(x + i + 8 * j);
      sums[j] = fma(values, values, sums[j]);
    }
  }
  float rest = 0.0f;
  for (; i < count; ++i) rest += x[i] * x[i];
  return total((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

THOTH_INLINE float square_root(float x) {
#if defined(__AVX2__)
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#else
  return __builtin_sqrtf(x);
#endif
}

}  // namespace

void quantise(const float* x, int inputs, int limit, std::int16_t* levels, float* scale) {
  const Extent found = extent(x, inputs);
  const bool finite = found.zero == 0.0f;
  const bool silent = !finite || found.largest < kSmallest;
  *scale = !finite ? found.zero : silent ? 0.0f : found.largest / static_cast<float>(limit);
  const int even = (inputs + 1) / 2 * 2;
  if (silent) {
    for (int i = 0; i < even; ++i) levels[i] = 0;
    return;
  }
  const Floats steps = splat(static_cast<float>(limit) / found.largest);
  const Floats most = splat(static_cast<float>(limit));
  int i = 0;
  for (; i + 8 <= inputs; i += 8) {
    const Floats scaled = smaller(larger(load<Floats>(x + i) * steps, -most), most);
    save(levels + i, __builtin_convertvector(nearest(scaled), Shorts));
  }
  for (; i < even; ++i) {
    const Floats scaled = smaller(larger(splat(i < inputs ? x[i] : 0.0f) * steps, -most), most);
    levels[i] = static_cast<std::int16_t>(nearest(scaled)[0]);
  }
}

void rms_norm(const float* x, const float* weight, int width, float epsilon, float* out) {
  const float mean = square_sum(x, width) / static_cast<float>(width);
  const float scale = 1.0f / square_root(mean + epsilon);
  int i = 0;
  for (; i + 8 <= width; i += 8) {
    save(out + i, load<Floats>(x + i) * scale * load<Floats>(weight + i));
  }
  for (; i < width; ++i) out[i] = x[i] * scale * weight[i];
}

void rotate(const float* x, const float* cos, const float* sin, int half, float* out) {
  int i = 0;
  for (; i + 8 <= half; i += 8) {
    const auto first = load<Floats>(x + i);
    const auto second = load<Floats>(x + half + i);
    const auto c = load<Floats>(cos + i);
    const auto s = load<Floats>(sin + i);
    save(out + i, first * c - second * s);
    save(out + half + i, second * c + first * s);
  }
  for (; i < half; ++i) {
    const float first = x[i];
    const float second = x[half + i];
    out[i] = first * cos[i] - second * sin[i];
    out[half + i] = second * cos[i] + first * sin[i];
  }
}

extern const LinearKernels linear_kernels;
const LinearKernels linear_kernels{
    multiply_float, multiply_int8, store, store_sum, store_gated, quantise, rms_norm, rotate,
};

}  // namespace thoth::THOTH_ISA

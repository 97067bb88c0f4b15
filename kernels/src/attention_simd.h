// Vectors of one instruction set. Included by `*_kernel.cpp` alone: everything here has internal
// linkage, so nothing compiled for one set can be linked into another.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace thoth::THOTH_ISA {
namespace {

#define THOTH_INLINE inline __attribute__((always_inline))

#if defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t VecInt __attribute__((vector_size(4 * kLanes)));

struct Float16 {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

THOTH_INLINE Vec broadcast(float x) {
#if defined(__AVX2__)
  return _mm256_set1_ps(x);
#else
  return Vec{x, x, x, x};
#endif
}

THOTH_INLINE VecInt broadcast(std::int32_t x) {
#if defined(__AVX2__)
  return VecInt{x, x, x, x, x, x, x, x};
#else
  return VecInt{x, x, x, x};
#endif
}

// a * b + c, rounded once where the instruction set can: the same in a vector and alone.
THOTH_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

THOTH_INLINE float multiply_add(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// The larger; `b` where either is NaN.
THOTH_INLINE Vec larger(Vec a, Vec b) {
#if defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

THOTH_INLINE float larger(float a, float b) { return a > b ? a : b; }

THOTH_INLINE Vec load(const float* p) {
  Vec x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

THOTH_INLINE void store(float* p, Vec x) { __builtin_memcpy(p, &x, sizeof x); }

// From 16 bits, exactly.
THOTH_INLINE Vec load(const BFloat16* p) {
  typedef std::uint16_t Half __attribute__((vector_size(2 * kLanes)));
  Half bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return reinterpret_cast<Vec>(__builtin_convertvector(bits, VecInt) << 16);
}

THOTH_INLINE Vec load(const Float16* p) {
#if defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  typedef std::uint16_t Half __attribute__((vector_size(2 * kLanes)));
  Half bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  const VecInt wide = __builtin_convertvector(bits, VecInt);
  const VecInt magnitude = (wide & 0x7fff) << 13;
  // 2^112 turns the exponent of 5 bits into one of 8, subnormal numbers included.
  const VecInt finite = reinterpret_cast<VecInt>(reinterpret_cast<Vec>(magnitude) * 0x1p112f);
  const VecInt not_finite = (wide & 0x7c00) == 0x7c00;
  const VecInt value = (not_finite & (magnitude | 0x7f800000)) | (~not_finite & finite);
  return reinterpret_cast<Vec>(value | ((wide & 0x8000) << 16));
#endif
}

THOTH_INLINE float load_one(const float* p) { return *p; }

// One element of 16 bits by way of a vector, so that there is one conversion.
template <typename T>
THOTH_INLINE float load_one(const T* p) {
  T padded[kLanes] = {};
  padded[0] = *p;
  return load(padded)[0];
}

// For loops over registers: an array stays out of memory only where every index is known.
#define THOTH_UNROLL _Pragma("GCC unroll 16")

// 16 elements in vectors. In registers their order is whatever is cheapest to load; `in_order` and
// `as_loaded` turn one into the other, and a chain of operations on an element never notices.
constexpr int kSixteen = 16 / kLanes;

struct Sixteen {
  Vec part[kSixteen];
};

template <typename T>
THOTH_INLINE Sixteen load_sixteen(const T* p) {
  Sixteen x;
  THOTH_UNROLL
  for (int i = 0; i < kSixteen; ++i) x.part[i] = load(p + i * kLanes);
  return x;
}

THOTH_INLINE void store_sixteen(float* p, const Sixteen& x) {
  THOTH_UNROLL
  for (int i = 0; i < kSixteen; ++i) store(p + i * kLanes, x.part[i]);
}

template <typename T>
THOTH_INLINE Sixteen in_order(const T*, const Sixteen& x) {
  return x;
}
template <typename T>
THOTH_INLINE Sixteen as_loaded(const T*, const Sixteen& x) {
  return x;
}

#if defined(__AVX2__)
// Elements of even number, then those of odd: one shift and one mask.
THOTH_INLINE Sixteen load_sixteen(const BFloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i even = _mm256_slli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
  return {{_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd)}};
}
THOTH_INLINE Sixteen in_order(const BFloat16*, const Sixteen& x) {
  const __m256 low = _mm256_unpacklo_ps(x.part[0], x.part[1]);    // 0 1 2 3 | 8 9 10 11
  const __m256 high = _mm256_unpackhi_ps(x.part[0], x.part[1]);   // 4 5 6 7 | 12 13 14 15
  return {{_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)}};
}
THOTH_INLINE Sixteen as_loaded(const BFloat16*, const Sixteen& x) {
  const __m256 low = _mm256_permute2f128_ps(x.part[0], x.part[1], 0x20);
  const __m256 high = _mm256_permute2f128_ps(x.part[0], x.part[1], 0x31);
  return {{_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xdd)}};
}
#endif

// 2^x for x <= 0, to 1 ulp; exactly 1 at 0, exactly 0 from -127 down, NaN for NaN.
//
// x = n + r with integer n and |r| <= 1/2; 2^r is a polynomial that was fitted for the least
// relative error over that interval, and 2^n is put together from its bits.
THOTH_INLINE Vec exp2_of(Vec x) {
  constexpr float kRound = 12582912.0f + 127.0f;  // 1.5 * 2^23: the last bit is worth 1
  x = larger(broadcast(-127.0f), x);
  const Vec shifted = x + broadcast(kRound);
  const Vec r = x - (shifted - broadcast(kRound));
  const Vec scale = reinterpret_cast<Vec>(reinterpret_cast<VecInt>(shifted) << 23);
  Vec y = broadcast(0x1.41fbbcp-13f);
  y = multiply_add(y, r, broadcast(0x1.5f3e54p-10f));
  y = multiply_add(y, r, broadcast(0x1.3b2d4cp-7f));
  y = multiply_add(y, r, broadcast(0x1.c6aee8p-5f));
  y = multiply_add(y, r, broadcast(0x1.ebfbdcp-3f));
  y = multiply_add(y, r, broadcast(0x1.62e430p-1f));
  y = multiply_add(y, r, broadcast(1.0f));
  return y * scale;
}

THOTH_INLINE float exp2_of(float x) { return exp2_of(broadcast(x))[0]; }

// Across the lanes, in one fixed order.
THOTH_INLINE float sum_of(Vec x) {
  float sum = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) sum += x[lane];
  return sum;
}

THOTH_INLINE float largest_of(Vec x) {
  float top = x[0];
  for (int lane = 1; lane < kLanes; ++lane) top = larger(top, x[lane]);
  return top;
}

THOTH_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }

}  // namespace
}  // namespace thoth::THOTH_ISA

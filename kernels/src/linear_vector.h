// Eight floats or integers at a time, in the instruction set this file is compiled for. Only for
// *_kernel.cpp: everything here is inlined there, so nothing compiled for one instruction set can
// be linked into another.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define THOTH_INLINE inline __attribute__((always_inline))

namespace thoth::THOTH_ISA {
namespace {

using Floats = float __attribute__((vector_size(32)));
using Ints = std::int32_t __attribute__((vector_size(32)));
using Shorts = std::int16_t __attribute__((vector_size(16)));

template <typename Vector, typename Element>
THOTH_INLINE Vector load(const Element* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <typename Vector, typename Element>
THOTH_INLINE void save(Element* to, Vector vector) {
  std::memcpy(to, &vector, sizeof vector);
}

THOTH_INLINE Floats splat(float x) { return Floats{x, x, x, x, x, x, x, x}; }

// a * b + c: one rounding where the instruction set has it.
THOTH_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

THOTH_INLINE Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

// b where one of them is no number.
THOTH_INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

THOTH_INLINE Floats smaller(Floats a, Floats b) {
#if defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

// The nearest integer, ties to even, of |x| < 2^22: the sum with 1.5 * 2^23 has no room for a
// fraction.
THOTH_INLINE Ints nearest(Floats x) {
  const Floats shifted = x + 12582912.0f;
  Ints bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  return bits - 0x4B400000;
}

// The sum of the elements, always in the same order.
THOTH_INLINE float total(Floats x) {
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

// e^x to about one unit in the last place; x is clamped to where the result is a normal number.
// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r is its Taylor polynomial of degree 7.
THOTH_INLINE Floats exponential(Floats x) {
  x = smaller(larger(x, splat(-87.3f)), splat(88.3f));
  const Ints n = nearest(x * 1.44269504f);
  const Floats whole = to_floats(n);
  // ln 2 in two parts; whole * the first is exact.
  Floats r = fma(whole, splat(-0.693359375f), x);
  r = fma(whole, splat(2.12194440e-4f), r);
  Floats p = splat(1.0f / 5040);
  p = fma(p, r, splat(1.0f / 720));
  p = fma(p, r, splat(1.0f / 120));
  p = fma(p, r, splat(1.0f / 24));
  p = fma(p, r, splat(1.0f / 6));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  const Ints power = (n + 127) << 23;
  Floats scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

}  // namespace
}  // namespace thoth::THOTH_ISA

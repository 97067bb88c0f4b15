// What becomes of a tile [rows][16].
#include "linear_kernels.h"
#include "linear_parts.h"
#include "linear_vector.h"

namespace thoth::THOTH_ISA {
namespace {

THOTH_INLINE Floats bias_at(const float* bias, int column) {
  return bias == nullptr ? Floats{} : load<Floats>(bias + column);
}

// The first `columns` of a vector, at most 8, at `out`.
THOTH_INLINE void save_some(Floats values, int columns, float* out) {
  if (columns >= 8) {
    save(out, values);
  } else {
    for (int i = 0; i < columns; ++i) out[i] = values[i];
  }
}

THOTH_INLINE Floats load_some(const float* from, int columns) {
  if (columns >= 8) return load<Floats>(from);
  Floats values{};
  for (int i = 0; i < columns; ++i) values[i] = from[i];
  return values;
}

// x / (1 + e^-x): sigmoid-weighted (Elfwing et al., arXiv 1702.03118).
THOTH_INLINE Floats silu(Floats x) { return x / (exponential(-x) + 1.0f); }

}  // namespace

void store(const float* tile, int rows, int columns, const float* bias, float* out, long stride) {
  const Floats low_shift = bias_at(bias, 0);
  const Floats high_shift = bias_at(bias, 8);
  for (int r = 0; r < rows; ++r, tile += kPanel, out += stride) {
    save_some(load<Floats>(tile) + low_shift, columns, out);
    save_some(load<Floats>(tile + 8) + high_shift, columns - 8, out + 8);
  }
}

void store_sum(const float* tile, int rows, int columns, const float* bias, float* out,
               long stride) {
  const Floats low_shift = bias_at(bias, 0);
  const Floats high_shift = bias_at(bias, 8);
  for (int r = 0; r < rows; ++r, tile += kPanel, out += stride) {
    save_some(load_some(out, columns) + (load<Floats>(tile) + low_shift), columns, out);
    save_some(load_some(out + 8, columns - 8) + (load<Floats>(tile + 8) + high_shift), columns - 8,
              out + 8);
  }
}

void store_gated(const float* tile, int rows, int columns, const float* bias, float* out,
                 long stride) {
  const Floats gate_shift = bias_at(bias, 0);
  const Floats up_shift = bias_at(bias, 8);
  for (int r = 0; r < rows; ++r) {
    const Floats gate = load<Floats>(tile + r * kPanel) + gate_shift;
    const Floats up = load<Floats>(tile + r * kPanel + 8) + up_shift;
    save_some(silu(gate) * up, columns, out + r * stride);
  }
}

}  // namespace thoth::THOTH_ISA

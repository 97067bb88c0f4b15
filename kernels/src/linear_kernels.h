// The inner loops of linear layers and of what lies between them, as a table for each instruction
// set.
//
// A matrix [outputs, inputs] is packed in panels of 16 outputs; a panel is contiguous:
//
//   float   [panel][inputs][16]
//   int8    [panel][pairs][16][2]       pairs = (inputs + 1) / 2, a missing input is 0
//
// and multiplied with up to `kBlockRows` rows at a time into a tile [rows][16] of float32.
//
// What keeps a row's bits its own: an element of a tile is one chain of operations that depends on
// its row, its panel and `inputs` only. How many rows share a register block, which rows they are
// and which thread computes them decides where the chain runs, never what is in it.
#pragma once

#include <cstdint>

namespace thoth {

constexpr int kPanel = 16;
constexpr int kBlockRows = 96;

// The rows of a float matrix product are summed in blocks of at most so many inputs: a panel's
// share of a block stays in the first cache, and shorter chains round less.
constexpr int kFloatInputs = 384;

struct FloatRows {
  const float* values;
  long stride;
};

// Row r stands for levels[r * stride + i] * scales[r].
struct LevelRows {
  const std::int16_t* levels;
  long stride;
  const float* scales;
};

struct LinearKernels {
  // tile = x [rows, inputs] * panel.
  void (*multiply_float)(FloatRows x, int rows, const float* panel, int inputs, float* tile);
  // The same for an int8 panel whose outputs stand for multiples of scales[16].
  void (*multiply_int8)(LevelRows x, int rows, const std::int8_t* panel, const float* scales,
                        int pairs, float* tile);

  // What becomes of a tile; `bias` is [16] or null, of `columns` outputs at `out`.
  void (*store)(const float* tile, int rows, int columns, const float* bias, float* out,
                long stride);
  // out += tile.
  void (*store_sum)(const float* tile, int rows, int columns, const float* bias, float* out,
                    long stride);
  // out = silu(a) * b, where the tile holds 8 outputs of a, then the same 8 of b.
  void (*store_gated)(const float* tile, int rows, int columns, const float* bias, float* out,
                      long stride);

  // levels = round(x / scale) in [-limit, limit], padded with a 0 to an even number, and the scale
  // that makes the largest one `limit`. A row with a NaN or an infinity gets the scale NaN; one
  // that is all but 0 gets the scale 0.
  void (*quantise)(const float* x, int inputs, int limit, std::int16_t* levels, float* scale);

  // out = x / rms(x) * weight (Zhang and Sennrich, arXiv 1910.07467). `out` may be x.
  void (*rms_norm)(const float* x, const float* weight, int width, float epsilon, float* out);
  // Turns the pairs (x[i], x[i + half]) by the angles of cos and sin [half]. `out` may be x.
  void (*rotate)(const float* x, const float* cos, const float* sin, int half, float* out);
};

// Those of isa().
const LinearKernels& linear_kernels();

}  // namespace thoth

// How a unit's rows share registers, and where its parts lie in scratch. Included by kernels alone.
#pragma once

#include "attention_kernel.h"
#include "attention_micro.h"

namespace thoth::THOTH_ISA {
namespace {

// Blocks of values between two visits of the accumulators to memory: enough to hide the visits, few
// enough that the values stay in the first cache while all rows pass over them.
constexpr int kGroupBlocks = 4;
// One line more than a tile: rows a power of two apart would fall into the same cache sets.
constexpr int kScoreStride = kTileTokens + 16;

THOTH_INLINE int smaller(int a, int b) { return a < b ? a : b; }
THOTH_INLINE int clamp(int x, int low, int high) { return x < low ? low : smaller(x, high); }
THOTH_INLINE int blocks_for(int keys) { return (keys + kBlockTokens - 1) / kBlockTokens; }

// Rows of one kv head that share the registers, and the keys of the tile they see.
struct RowBlock {
  int first;
  int count;
  int keys;    // that some row sees
  int common;  // that every row sees
};

// A kv head's rows in row blocks whose sizes differ by one at most.
struct RowBlocks {
  int num_rows;
  int num_blocks;

  explicit RowBlocks(int rows) : num_rows(rows), num_blocks((rows + kMaxRows - 1) / kMaxRows) {}

  RowBlock of(int i, const std::int32_t* limits, int tile) const {
    const int size = num_rows / num_blocks, longer = num_rows % num_blocks;
    RowBlock block;
    block.first = i * size + smaller(i, longer);
    block.count = size + (i < longer ? 1 : 0);
    const int before = tile * kTileTokens;
    block.common = clamp(limits[block.first] - before, 0, kTileTokens);
    block.keys = clamp(limits[block.first + block.count - 1] - before, 0, kTileTokens);
    return block;
  }
};

// Where each part of the scratch begins, in floats. `rows` are those of all kv heads.
struct Layout {
  std::size_t scores;  // [rows, kScoreStride]; before it the queries, scaled, in row blocks of
                       // [head_dim, rows of the block]
  std::size_t tile;    // [rows] states of the tile
  std::size_t folded;  // [rows] states of the tiles so far
  std::size_t end;

  Layout(int num_rows, int dim) {
    const auto rows = static_cast<std::size_t>(num_rows), head_dim = static_cast<std::size_t>(dim);
    const std::size_t states = rows * static_cast<std::size_t>(state_floats(dim));
    scores = (rows * head_dim + 15) / 16 * 16;
    tile = scores + rows * kScoreStride;
    folded = tile + states;
    end = folded + states;
  }
};

}  // namespace
}  // namespace thoth::THOTH_ISA

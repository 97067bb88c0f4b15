// The inner loops of attention: what is asked of them, and a table of them for each instruction set.
//
// Plain structs alone, so that `*_kernel.cpp` may include it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace thoth {

constexpr int kBlockTokens = 16;
constexpr int kTileTokens = 256;
constexpr int kTileBlocks = kTileTokens / kBlockTokens;

enum class KvType { float32, float16, bfloat16 };

// Rows against tiles [tile_begin, tile_end) of a segment, for neighbouring kv heads. A row here is
// one query head of one row of the step; each kv head has as many, in the order of their limits.
struct AttentionUnit {
  // The first of the kv heads. Keys of a block are [num_heads, head_dim, 16], values
  // [num_heads, 16, head_dim].
  const char* k;
  const char* v;
  std::ptrdiff_t k_stride;  // bytes from one block to the next
  std::ptrdiff_t v_stride;
  KvType type;
  int head_dim;
  int num_heads;
  const std::int32_t* blocks;  // of the segment, from its first
  int tile_begin;
  int tile_end;
  int num_rows;                // of each kv head
  float scale;                 // of the scores
  const std::int32_t* limits;  // [num_rows] keys of the segment that the row sees, rising
  const float* const* q;       // [num_heads, num_rows] of [head_dim]
  // Where the rows' states over the segment go, [num_heads, num_rows] of [head_dim] and of one
  // float; not used with `tile_states`.
  float* const* o;
  float* const* lse;
  // Null, or where the state of every tile goes instead of being folded: [tiles, num_heads,
  // num_rows] states of `state_floats`.
  float* tile_states;
};

// Floats of a row's state over a tile, see attention_state.h.
constexpr int state_floats(int head_dim) { return (head_dim + 2 + 15) / 16 * 16; }

struct AttentionKernels {
  // Floats of scratch that `attend` writes to, for the rows of all kv heads of a unit.
  std::size_t (*scratch_floats)(int num_rows, int head_dim);
  void (*attend)(const AttentionUnit& unit, float* scratch);
  // Folds one row's states of `num_tiles` tiles, `stride` floats apart, left to right; the first
  // is written over.
  void (*fold)(float* states, std::size_t stride, int num_tiles, int head_dim, float* o,
               float* lse);
  // (o, lse) becomes the state over its keys and those of the other.
  void (*merge)(float* o, float* lse, const float* other_o, float other_lse, int head_dim);
};

// Those of `isa()`.
const AttentionKernels& attention_kernels();

}  // namespace thoth

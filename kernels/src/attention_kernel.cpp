// Rows against the tiles of a segment, a tile at a time: scores, their exponentials, the weighted
// sum of values.
//
// One rule carries the promise that bits do not depend on company: every number of a row is made by
// one chain of operations, the same however many rows, keys or elements stand beside it in
// registers.
//
//   score of a key       multiply_add over the elements of the head, first to last
//   o of a tile          multiply_add over the keys that the row sees, first to last
//   sum of a tile        lane by lane over its keys (0 for those not seen), then across lanes
//   o of a segment       fold of its tiles, left to right
//
// Rows are taken up to kMaxRows at a time against the 16 keys of a block: that many accumulators
// fill the registers, and each key that was loaded serves all of the rows. Memory is read in its own
// order: block by block, in a block kv head by kv head.
#include "attention_kernel.h"

#include "attention_micro.h"
#include "attention_reading.h"
#include "attention_rows.h"
#include "attention_state.h"

namespace thoth::THOTH_ISA {
namespace {

template <typename T>
class Attend {
 public:
  Attend(const AttentionUnit& unit, float* memory)
      : unit_(unit),
        head_dim_(unit.head_dim),
        stride_(state_floats(head_dim_)),
        num_states_(unit.num_heads * unit.num_rows),
        rows_(unit.num_rows),
        reading_(unit, rows_),
        memory_(memory),
        layout_(num_states_, head_dim_) {}

  void run() {
    pack_queries();
    if (unit_.tile_states != nullptr) {
      float* states = unit_.tile_states;
      for (int tile = unit_.tile_begin; tile < unit_.tile_end; ++tile) {
        attend_tile(tile, states);
        states += static_cast<std::ptrdiff_t>(num_states_) * stride_;
      }
      return;
    }
    float* const folded = memory_ + layout_.folded;
    float* const states = memory_ + layout_.tile;
    for (int i = 0; i < num_states_; ++i) state(folded, i).sum() = 0.0f;
    for (int tile = unit_.tile_begin; tile < unit_.tile_end; ++tile) {
      attend_tile(tile, states);
      for (int i = 0; i < num_states_; ++i) fold_tile(state(folded, i), state(states, i));
    }
    for (int i = 0; i < num_states_; ++i) finish(state(folded, i), unit_.o[i], unit_.lse[i]);
  }

 private:
  State state(float* states, int i) const {
    return {states + static_cast<std::ptrdiff_t>(i) * stride_, head_dim_};
  }
  RowBlock row_block(int i, int tile) const { return rows_.of(i, unit_.limits, tile); }
  int keys_seen(int row, int tile) const {
    return clamp(unit_.limits[row] - tile * kTileTokens, 0, kTileTokens);
  }
  const float* queries(int head, const RowBlock& rows) const {
    return memory_ + static_cast<std::ptrdiff_t>(head * unit_.num_rows + rows.first) * head_dim_;
  }
  float* scores(int head, int row) const {
    return memory_ + layout_.scores +
           static_cast<std::ptrdiff_t>(head * unit_.num_rows + row) * kScoreStride;
  }

  void pack_queries() {
    const float scale = unit_.scale * kLog2E;
    float* out = memory_;
    for (int head = 0; head < unit_.num_heads; ++head) {
      for (int i = 0; i < rows_.num_blocks; ++i) {
        const RowBlock block = row_block(i, 0);
        const float* const* q = unit_.q + head * unit_.num_rows + block.first;
        for (int d = 0; d < head_dim_; ++d) {
          for (int r = 0; r < block.count; ++r) *out++ = q[r][d] * scale;
        }
      }
    }
  }

  void attend_tile(int tile, float* states) {
    const std::ptrdiff_t head_states = static_cast<std::ptrdiff_t>(unit_.num_rows) * stride_;
    const int num_blocks = reading_.num_blocks(tile);
    for (int b = 0; b < num_blocks; b += reading_.key_width()) {
      const int count = smaller(reading_.key_width(), num_blocks - b);
      for (int head = 0; head < unit_.num_heads; ++head) score_blocks_of(tile, head, b, count);
    }
    for (int head = 0; head < unit_.num_heads; ++head) {
      weigh_head(tile, head, states + head * head_states);
    }
    for (int b = 0; b < num_blocks; b += reading_.value_width()) {
      const int count = smaller(reading_.value_width(), num_blocks - b);
      for (int head = 0; head < unit_.num_heads; ++head) {
        sum_blocks_of(tile, head, b, count, states + head * head_states);
      }
    }
  }

  void score_blocks_of(int tile, int head, int b, int count) {
    const T* block[kMaxWide];
    const T* ahead[kMaxWide];
    for (int i = 0; i < count; ++i) {
      block[i] = reading_.keys(head, tile * kTileBlocks + b + i);
      ahead[i] = reading_.upcoming();
    }
    const T* const* next = ahead;  // what the first rows ask for while they read `block`
    for (int i = 0; i < rows_.num_blocks; ++i) {
      const RowBlock rows = row_block(i, tile);
      if (rows.keys <= b * kBlockTokens) continue;
      score_rows(rows.count, count, queries(head, rows), block, next, head_dim_,
                 scores(head, rows.first) + b * kBlockTokens, kScoreStride);
      next = block;
    }
  }

  // Scores become weights; the states get their largest score and their sum. All rows' largest
  // first: what one waits for is hidden behind the next.
  void weigh_head(int tile, int head, float* states) {
    for (int r = 0; r < unit_.num_rows; ++r) {
      float* s = scores(head, r);
      const int seen = keys_seen(r, tile), count = blocks_for(seen) * kBlockTokens;
      for (int t = seen; t < count; ++t) s[t] = -kInfinity;
      state(states, r).top() = largest_score(s, count);
    }
    for (int r = 0; r < unit_.num_rows; ++r) {
      const State row = state(states, r);
      const int count = blocks_for(keys_seen(r, tile)) * kBlockTokens;
      row.sum() = weigh_scores(scores(head, r), count, row.top());
    }
  }

  void sum_blocks_of(int tile, int head, int b, int count, float* states) {
    const T* block[kGroupBlocks];
    const T* ahead[kGroupBlocks];
    for (int i = 0; i < count; ++i) {
      block[i] = reading_.values(head, tile * kTileBlocks + b + i);
      ahead[i] = reading_.upcoming();
    }
    const T* const* next = ahead;
    for (int i = 0; i < rows_.num_blocks; ++i) {
      const RowBlock rows = row_block(i, tile);
      if (b > 0 && rows.keys <= b * kBlockTokens) continue;
      sum_keys(tile, head, rows, b, count, block, next, states);
      next = block;
    }
  }

  // The keys that all rows see, and then for each row the few that it alone sees.
  void sum_keys(int tile, int head, const RowBlock& rows, int b, int count, const T* const* block,
                const T* const* ahead, float* states) {
    const int begin = b * kBlockTokens, most = count * kBlockTokens;
    const int common = clamp(rows.common - begin, 0, most);
    if (b == 0 || common > 0) {
      const Weights weights{scores(head, rows.first) + begin, kScoreStride, common, b == 0};
      sum_rows(rows.count, weights, block, ahead, head_dim_, state(states, rows.first).o, stride_);
    }
    for (int r = rows.first; r < rows.first + rows.count; ++r) {
      const int seen = clamp(keys_seen(r, tile) - begin, 0, most);
      for (int t = common; t < seen; ++t) {
        add_value(scores(head, r)[begin + t],
                  block[t / kBlockTokens] + (t % kBlockTokens) * head_dim_, head_dim_,
                  state(states, r).o);
      }
    }
  }

  const AttentionUnit& unit_;
  const int head_dim_;
  const int stride_;
  const int num_states_;
  const RowBlocks rows_;
  Reading<T> reading_;
  float* const memory_;
  const Layout layout_;
};

std::size_t scratch_floats(int num_rows, int head_dim) { return Layout(num_rows, head_dim).end; }

void attend(const AttentionUnit& unit, float* scratch) {
  switch (unit.type) {
    case KvType::float32: return Attend<float>(unit, scratch).run();
    case KvType::float16: return Attend<Float16>(unit, scratch).run();
    case KvType::bfloat16: return Attend<BFloat16>(unit, scratch).run();
  }
}

}  // namespace

extern const AttentionKernels attention_kernels;
const AttentionKernels attention_kernels{scratch_floats, attend, fold, merge};

}  // namespace thoth::THOTH_ISA

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
#include "attention_rows.h"
#include "attention_state.h"

namespace thoth::THOTH_ISA {
namespace {

// Bytes of keys or values that few rows take from one kv head at a time, and how far ahead of that
// memory is asked for: far enough for its latency, near enough to stay in the first cache.
constexpr int kVisitBytes = 8192;
constexpr int kAheadBytes = 8192;

template <typename T>
class Attend {
 public:
  Attend(const AttentionUnit& unit, float* memory)
      : unit_(unit),
        head_dim_(unit.head_dim),
        stride_(state_floats(head_dim_)),
        num_states_(unit.num_heads * unit.num_rows),
        rows_(unit.num_rows),
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
  // Blocks of a tile that a kv head's rows take at once.
  struct Visits {
    int width;       // blocks
    int per_head;    // visits of one kv head in the tile
    int num_blocks;  // of the tile
  };

  State state(float* states, int i) const {
    return {states + static_cast<std::ptrdiff_t>(i) * stride_, head_dim_};
  }
  RowBlock row_block(int i, int tile) const { return rows_.of(i, unit_.limits, tile); }
  int keys_seen(int row, int tile) const {
    return clamp(unit_.limits[row] - tile * kTileTokens, 0, kTileTokens);
  }
  int num_blocks(int tile) const { return blocks_for(keys_seen(unit_.num_rows - 1, tile)); }
  const float* queries(int head, const RowBlock& rows) const {
    return memory_ + static_cast<std::ptrdiff_t>(head * unit_.num_rows + rows.first) * head_dim_;
  }
  float* scores(int head, int row) const {
    return memory_ + layout_.scores +
           static_cast<std::ptrdiff_t>(head * unit_.num_rows + row) * kScoreStride;
  }
  int block_elements() const { return head_dim_ * kBlockTokens; }
  const T* keys(int head, int block) const {
    return reinterpret_cast<const T*>(unit_.k + unit_.blocks[block] * unit_.k_stride) +
           head * block_elements();
  }
  const T* values(int head, int block) const {
    return reinterpret_cast<const T*>(unit_.v + unit_.blocks[block] * unit_.v_stride) +
           head * block_elements();
  }

  Visits key_visits(int count) const {
    const int width = rows_.num_blocks == 1 ? wide_blocks(rows_.num_rows) : 1;
    return {width, (count + width - 1) / width, count};
  }
  Visits value_visits(int count) const {
    const int bytes = block_elements() * static_cast<int>(sizeof(T));
    const int width = rows_.num_blocks > 1 ? kGroupBlocks : clamp(kVisitBytes / bytes, 1, kGroupBlocks);
    return {width, (count + width - 1) / width, count};
  }
  int visits_ahead(int width) const {
    return 1 + kAheadBytes / (width * block_elements() * static_cast<int>(sizeof(T)));
  }

  // The blocks that come `visits_ahead` after visit `i` of the tile's keys, or of its values when
  // `i` is past those; what it holds is asked for and never read, so any block serves at the end.
  void look_ahead(int tile, const Visits& k, const Visits& v, int i, int width,
                  const T** ahead) const {
    i += visits_ahead(width);
    int first = tile * kTileBlocks, count = k.num_blocks;
    const int key_end = k.per_head * unit_.num_heads, value_end = v.per_head * unit_.num_heads;
    bool is_key = i < key_end;
    Visits visits = k;
    if (!is_key) {
      i -= key_end;
      visits = v;
      if (i >= value_end) {
        i -= value_end;
        is_key = tile + 1 < unit_.tile_end && i < key_end;
        if (is_key) {
          first += kTileBlocks;
          count = num_blocks(tile + 1);
          visits = k;
        } else {
          i = 0;
        }
      }
    }
    const int head = i % unit_.num_heads, block = i / unit_.num_heads * visits.width;
    for (int j = 0; j < width; ++j) {
      const int at = first + smaller(block + smaller(j, visits.width - 1), count - 1);
      ahead[j] = is_key ? keys(head, at) : values(head, at);
    }
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
    const int count = num_blocks(tile);
    const Visits k = key_visits(count), v = value_visits(count);
    int visit = 0;
    for (int i = 0; i < k.per_head; ++i) {
      for (int head = 0; head < unit_.num_heads; ++head, ++visit) {
        score_visit(tile, head, i * k.width, k, v, visit);
      }
    }
    for (int head = 0; head < unit_.num_heads; ++head) {
      weigh_head(tile, head, states + static_cast<std::ptrdiff_t>(head) * unit_.num_rows * stride_);
    }
    // Once at least: the first visit is what clears o.
    for (int i = 0; i == 0 || i < v.per_head; ++i) {
      for (int head = 0; head < unit_.num_heads; ++head, ++visit) {
        sum_visit(tile, head, i * v.width, k, v, visit,
                  states + static_cast<std::ptrdiff_t>(head) * unit_.num_rows * stride_);
      }
    }
  }

  void score_visit(int tile, int head, int b, const Visits& k, const Visits& v, int visit) {
    const T* ahead[kMaxWide];
    look_ahead(tile, k, v, visit, k.width, ahead);
    const int first = tile * kTileBlocks + b;
    if (rows_.num_blocks == 1) {
      const RowBlock rows = row_block(0, tile);
      const int count = smaller(k.width, k.num_blocks - b);
      const T* block[kMaxWide];
      for (int i = 0; i < count; ++i) block[i] = keys(head, first + i);
      score_rows(rows.count, count, queries(head, rows), block, ahead, head_dim_,
                 scores(head, rows.first) + b * kBlockTokens, kScoreStride);
      return;
    }
    const float* block = widened(keys(head, first), ahead[0], block_elements(),
                                 memory_ + layout_.widened);
    const float* next = to_ask_for(ahead[0], block);
    for (int i = 0; i < rows_.num_blocks; ++i) {
      const RowBlock rows = row_block(i, tile);
      if (rows.keys <= b * kBlockTokens) continue;
      score_rows(rows.count, 1, queries(head, rows), &block, &next, head_dim_,
                 scores(head, rows.first) + b * kBlockTokens, kScoreStride);
      next = block;
    }
  }

  // What the first rows ask for while they read `block`: `widened` has asked for narrower types.
  static const float* to_ask_for(const T* next, const float* block) {
    if constexpr (std::is_same_v<T, float>) return next;
    return block;
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

  void sum_visit(int tile, int head, int b, const Visits& k, const Visits& v, int visit,
                 float* states) {
    const T* ahead[kGroupBlocks];
    look_ahead(tile, k, v, visit, v.width, ahead);
    const T* block[kGroupBlocks];
    const int count = smaller(v.width, v.num_blocks - b);
    for (int i = 0; i < count; ++i) block[i] = values(head, tile * kTileBlocks + b + i);
    if (rows_.num_blocks == 1) {
      sum_keys(tile, head, row_block(0, tile), b, v.width, block, ahead, states);
      return;
    }
    const float* wide[kGroupBlocks];
    const float* next[kGroupBlocks];
    for (int i = 0; i < count; ++i) {
      float* out = memory_ + layout_.widened + static_cast<std::ptrdiff_t>(i) * block_elements();
      wide[i] = widened(block[i], ahead[i], block_elements(), out);
      next[i] = to_ask_for(ahead[i], wide[i]);
    }
    for (int i = 0; i < rows_.num_blocks; ++i) {
      const RowBlock rows = row_block(i, tile);
      if (b > 0 && rows.keys <= b * kBlockTokens) continue;
      sum_keys(tile, head, rows, b, v.width, wide, i == 0 ? next : wide, states);
    }
  }

  // The keys that all rows see, and then for each row the few that it alone sees.
  template <typename V>
  void sum_keys(int tile, int head, const RowBlock& rows, int b, int width, const V* const* block,
                const V* const* ahead, float* states) {
    const int begin = b * kBlockTokens, most = width * kBlockTokens;
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

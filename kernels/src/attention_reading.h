// The order in which a unit reads memory. Included by kernels alone.
#pragma once

#include "attention_kernel.h"
#include "attention_micro.h"
#include "attention_rows.h"

namespace thoth::THOTH_ISA {
namespace {

// Few rows read this much of one kv head at a time; more of it would leave the first cache again
// before all elements of the values were summed.
constexpr int kVisitBytes = 8192;
// How far ahead memory is asked for: far enough for its latency, near enough to stay in the cache.
constexpr int kAheadBytes = 8192;

// A chunk is what a block holds of one kv head: its keys, or its values. A tile is read
//
//   keys    blocks of a visit, of the first kv head; of the next; ...; the next visit
//   values  the same
template <typename T>
class Reading {
 public:
  Reading(const AttentionUnit& unit, const RowBlocks& rows) : unit_(unit) {
    const int chunk_bytes = elements() * static_cast<int>(sizeof(T));
    const bool few = rows.num_blocks == 1;
    key_width_ = few ? wide_blocks(rows.num_rows) : 1;
    value_width_ = few ? clamp(kVisitBytes / chunk_bytes, 1, kGroupBlocks) : kGroupBlocks;
    if (unit.tile_begin == unit.tile_end) return;
    begin_tile(unit.tile_begin);
    for (int i = 0; i < key_width_ + kAheadBytes / chunk_bytes; ++i) upcoming();
  }

  // Blocks of a visit.
  int key_width() const { return key_width_; }
  int value_width() const { return value_width_; }

  int num_blocks(int tile) const {
    const int left = unit_.limits[unit_.num_rows - 1] - tile * kTileTokens;
    return blocks_for(clamp(left, 0, kTileTokens));
  }
  const T* keys(int head, int block) const {
    return reinterpret_cast<const T*>(unit_.k + unit_.blocks[block] * unit_.k_stride) +
           head * elements();
  }
  const T* values(int head, int block) const {
    return reinterpret_cast<const T*>(unit_.v + unit_.blocks[block] * unit_.v_stride) +
           head * elements();
  }

  // A chunk that will be read `kAheadBytes` after the one that is read now. Called once for each;
  // at the end of the unit it stays at the last.
  const T* upcoming() {
    const int block = tile_ * kTileBlocks + first_ + i_;
    const T* chunk = is_values_ ? values(head_, block) : keys(head_, block);
    advance();
    return chunk;
  }

 private:
  int elements() const { return unit_.head_dim * kBlockTokens; }

  void begin_tile(int tile) {
    tile_ = tile;
    count_ = num_blocks(tile);
    is_values_ = false;
  }

  void advance() {
    const int width = is_values_ ? value_width_ : key_width_;
    if (++i_ < smaller(width, count_ - first_)) return;
    i_ = 0;
    if (++head_ < unit_.num_heads) return;
    head_ = 0;
    first_ += width;
    if (first_ < count_) return;
    first_ = 0;
    if (!is_values_) {
      is_values_ = true;
    } else if (tile_ + 1 < unit_.tile_end) {
      begin_tile(tile_ + 1);
    }
  }

  const AttentionUnit& unit_;
  int key_width_;
  int value_width_;
  int tile_ = 0;
  int count_ = 0;  // blocks of the tile
  bool is_values_ = false;
  int first_ = 0;  // block of the tile with which the visit begins
  int head_ = 0;
  int i_ = 0;  // block of the visit
};

}  // namespace
}  // namespace thoth::THOTH_ISA

// How the work of a layer is cut into parts that threads take.
//
//   units    rows that see a segment x kv heads, up to kMaxUnitRows in all [x range of its tiles]
//   splits   units that were cut in ranges of tiles: their tiles' states are folded afterwards
//   merges   rows of several segments: the states over the segments are folded afterwards
//
// What is cut never changes a bit: every tile's state is made from that tile alone, and both folds
// go from left to right whoever does them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention_kernel.h"
#include "attention_plan.h"

namespace thoth {

constexpr int kMaxUnitRows = 96;

// What a schedule depends on beside the plan.
struct ScheduleKey {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int element_bytes = 0;
  int num_threads = 0;

  bool operator==(const ScheduleKey&) const = default;
  int group() const { return heads / kv_heads; }
};

// One row that sees a segment: how many keys of it, and where its state goes: straight to the
// output over the first segment of the row's context, else to a part that is merged later.
struct SegmentRow {
  static constexpr std::int32_t kOutput = -1;

  std::int32_t row;
  std::int32_t limit;
  std::int32_t part;
};

// Rows [first, first + num_rows) of a segment's rows x heads of a kv head's group, for neighbouring
// kv heads. Few rows take several kv heads, because memory is fastest in its own order.
struct UnitRows {
  std::int32_t segment;
  std::int32_t kv_head;
  std::int32_t num_heads;
  std::int32_t num_rows;
  std::int64_t first;

  std::int32_t num_states() const { return num_heads * num_rows; }
};

struct Unit {
  UnitRows rows;
  std::int32_t tile_begin;
  std::int32_t tile_end;
  bool is_split;
  std::size_t states;  // where its tiles' states begin, when it is split
  double cost;
};

struct Split {
  UnitRows rows;
  std::int32_t num_tiles;
  std::size_t states;
};

struct Merge {
  std::int32_t row;
  std::int32_t first_part;
  std::int32_t num_parts;
};

// Rows that are computed together; several waves only where all parts at once would take too much
// memory.
struct Wave {
  std::vector<SegmentRow> rows;           // of all segments
  std::vector<std::size_t> row_offsets;   // [segments + 1]
  std::vector<Unit> units;
  std::vector<Split> splits;
  std::vector<Merge> merges;
  std::int32_t num_parts = 0;
  std::size_t tile_floats = 0;

  const SegmentRow* rows_of(int segment) const {
    return rows.data() + row_offsets[static_cast<std::size_t>(segment)];
  }
};

struct Schedule {
  std::vector<Wave> waves;
};

Schedule make_schedule(const Plan& plan, const ScheduleKey& key);

}  // namespace thoth

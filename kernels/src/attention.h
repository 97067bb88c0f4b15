// Paged attention of a step: which rows see which segments, and the work of a layer.
//
//   row  ->  its segments' partial states  ->  folded in the order of its context
//   segment  ->  all rows that see it      ->  its keys are read once for all of them
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention_kernel.h"
#include "attention_schedule.h"
#include "threads.h"

namespace thoth {

// Keys and values of a layer. Keys are [num_blocks, kv_heads, head_dim, 16], values [num_blocks,
// kv_heads, 16, head_dim]; strides are bytes from block to block, the rest is contiguous.
struct KvCache {
  char* k;
  char* v;
  std::ptrdiff_t k_stride;
  std::ptrdiff_t v_stride;
  std::int64_t num_blocks;
  int kv_heads;
  int head_dim;
  KvType type;
};

// One layer's queries and where their states go: `q` and `o` are [num_rows, heads, head_dim], `lse`
// is [num_rows, heads].
struct AttentionRows {
  const float* q;
  float* o;
  float* lse;
  int num_rows;
  int heads;
};

// The plan of a step, used for each of its layers by one caller at a time.
class AttentionPlan {
 public:
  // Throws std::invalid_argument, naming the array at fault.
  explicit AttentionPlan(const PlanArrays& arrays);

  // Rows in no run get the unit. Throws std::invalid_argument where the plan has rows or blocks
  // that are not there, or where kv heads do not divide heads.
  void attend(const AttentionRows& rows, const KvCache& cache, Threads& threads);

 private:
  struct Places;

  void prepare(const ScheduleKey& key);
  void find_places(const Wave& wave, const UnitRows& unit, const AttentionRows& rows,
                   Places& places);
  void run_units(const Wave& wave, const AttentionRows& rows, const KvCache& cache,
                 Threads& threads);
  void fold_tiles(const Wave& wave, const AttentionRows& rows, Threads& threads);
  void merge_segments(const Wave& wave, const AttentionRows& rows, Threads& threads);

  const Plan plan_;
  ScheduleKey key_{};
  Schedule schedule_;
  std::vector<float> parts_;       // states of rows over all but the first of their segments
  std::vector<float> part_lse_;
  std::vector<float> tiles_;       // states of tiles of the units that are split
  std::vector<std::vector<float>> scratch_;  // of each thread
};

// Writes k and v, [num_rows, kv_heads, head_dim], into slots (16 * block + place), each once.
// Throws std::invalid_argument for a slot that is not there, before anything is written.
void append(const KvCache& cache, std::span<const std::int64_t> slots, const float* k,
            const float* v, Threads& threads);

}  // namespace thoth

// What a step asks of another memory, as it lies in a lane: one array after the other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "attention_plan.h"
#include "channel_memory.h"

namespace thoth {

// cluster/attention/split.py says what it means: part i is a state of query rows[i].
struct StepPlan {
  std::int32_t num_queries;
  std::span<const std::int32_t> rows;  // [parts]
  PlanArrays attention;

  std::array<std::span<const std::int32_t>, kStepArrays> arrays() const {
    return {rows, attention.run_rows, attention.run_offsets, attention.run_segments,
            attention.segment_tokens, attention.segment_offsets, attention.block_ids};
  }
};

// The other way round. `counts` fit into `numbers`.
StepPlan step_plan(std::int32_t num_queries, std::span<const std::int32_t> numbers,
                   const std::array<std::int32_t, kStepArrays>& counts);

// All that bounds what computing it takes; what else can be wrong `AttentionPlan` finds. Throws
// std::invalid_argument, naming what is too many.
void check_step_plan(const StepPlan& plan, const ChannelSizes& sizes);

}  // namespace thoth

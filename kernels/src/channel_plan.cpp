#include "channel_plan.h"

#include <stdexcept>
#include <string>

namespace thoth {
namespace {

// Pairs of a row and a segment: each takes some bytes while the step is laid out.
constexpr std::int64_t kMaxRowSegments = std::int64_t{1} << 23;

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

void check_count(const char* name, std::int64_t count, std::int64_t most) {
  if (count < 0 || count > most) {
    refuse("the step has " + std::to_string(count) + " " + name + ", the channel " +
           std::to_string(most));
  }
}

void check_rows(const StepPlan& plan) {
  for (const std::int32_t row : plan.rows) {
    if (row < 0 || row >= plan.num_queries) {
      refuse("rows has " + std::to_string(row) + " of " + std::to_string(plan.num_queries) +
             " queries");
    }
  }
}

void check_runs(const PlanArrays& plan, std::int64_t num_parts) {
  const std::size_t num_runs = plan.run_rows.size() / 2;
  if (plan.run_offsets.size() != num_runs + 1) {
    refuse("run_offsets has " + std::to_string(plan.run_offsets.size()) + " entries for " +
           std::to_string(num_runs) + " runs");
  }
  std::int64_t row_segments = 0;
  for (std::size_t r = 0; r < num_runs; ++r) {
    const std::int64_t first = plan.run_rows[2 * r], count = plan.run_rows[2 * r + 1];
    if (first < 0 || count < 0 || first + count > num_parts) {
      refuse("run_rows has " + std::to_string(count) + " rows from row " + std::to_string(first) +
             ", the step " + std::to_string(num_parts) + " parts");
    }
    const std::int64_t begin = plan.run_offsets[r], end = plan.run_offsets[r + 1];
    if (begin < 0 || end < begin) refuse("run_offsets falls somewhere");
    row_segments += count * (end - begin);
    check_count("rows and segments of theirs", row_segments, kMaxRowSegments);
  }
}

}  // namespace

StepPlan step_plan(std::int32_t num_queries, std::span<const std::int32_t> numbers,
                   const std::array<std::int32_t, kStepArrays>& counts) {
  std::array<std::span<const std::int32_t>, kStepArrays> arrays;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    arrays[i] = numbers.subspan(begin, static_cast<std::size_t>(counts[i]));
    begin += arrays[i].size();
  }
  return {num_queries,
          arrays[0],
          {arrays[1], arrays[2], arrays[3], arrays[4], arrays[5], arrays[6]}};
}

void check_step_plan(const StepPlan& plan, const ChannelSizes& sizes) {
  check_count("queries", plan.num_queries, sizes.max_queries);
  const auto num_parts = static_cast<std::int64_t>(plan.rows.size());
  check_count("parts", num_parts, sizes.max_parts);
  std::int64_t numbers = 0;
  for (const auto& array : plan.arrays()) numbers += static_cast<std::int64_t>(array.size());
  check_count("numbers in its plan", numbers, sizes.plan_numbers);
  check_rows(plan);
  check_runs(plan.attention, num_parts);
}

}  // namespace thoth

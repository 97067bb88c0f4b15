// Which rows see which keys, validated.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thoth {

// A plan as it comes, in rows of compressed arrays; cluster/attention/plan.py says what each means.
struct PlanArrays {
  std::span<const std::int32_t> run_rows;  // [runs, 2]
  std::span<const std::int32_t> run_offsets;
  std::span<const std::int32_t> run_segments;
  std::span<const std::int32_t> segment_tokens;
  std::span<const std::int32_t> segment_offsets;
  std::span<const std::int32_t> block_ids;
};

struct Run {
  std::int32_t first_row;
  std::int32_t num_rows;
  std::span<const std::int32_t> segments;
};

class Plan {
 public:
  // Throws std::invalid_argument, naming the array at fault.
  explicit Plan(const PlanArrays& arrays);
  Plan(const Plan&) = delete;  // spans point into it
  Plan& operator=(const Plan&) = delete;

  const std::vector<Run>& runs() const { return runs_; }
  int num_segments() const { return static_cast<int>(segment_tokens_.size()); }
  std::int32_t tokens(int segment) const { return segment_tokens_[static_cast<std::size_t>(segment)]; }
  const std::int32_t* blocks(int segment) const {
    return block_ids_.data() + segment_offsets_[static_cast<std::size_t>(segment)];
  }
  // One past the last row of any run, and the largest number of any block.
  std::int32_t end_row() const { return end_row_; }
  std::int32_t last_block() const { return last_block_; }
  // [end_row]: whether a run has the row.
  const std::vector<bool>& has_row() const { return has_row_; }

 private:
  void check_segments() const;
  void add_runs(const PlanArrays& arrays);
  void add_run(const Run& run);

  std::vector<std::int32_t> run_segments_;
  std::vector<std::int32_t> segment_tokens_;
  std::vector<std::int32_t> segment_offsets_;
  std::vector<std::int32_t> block_ids_;
  std::vector<Run> runs_;
  std::vector<bool> has_row_;
  std::int32_t end_row_ = 0;
  std::int32_t last_block_ = -1;
};

}  // namespace thoth

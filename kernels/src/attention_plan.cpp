#include "attention_plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "attention_kernel.h"

namespace thoth {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

std::vector<std::int32_t> copied(std::span<const std::int32_t> values) {
  return {values.begin(), values.end()};
}

// Offsets of a compressed array: from 0, never falling, up to the length of what they point into.
void check_offsets(const char* name, std::span<const std::int32_t> offsets, std::size_t count,
                   std::size_t length) {
  const std::string said = name;
  if (offsets.size() != count + 1) {
    refuse(said + " has " + std::to_string(offsets.size()) + " entries, not " +
           std::to_string(count + 1));
  }
  if (offsets.front() != 0) refuse(said + " begins with " + std::to_string(offsets.front()));
  if (!std::is_sorted(offsets.begin(), offsets.end())) refuse(said + " falls somewhere");
  if (static_cast<std::size_t>(offsets.back()) != length) {
    refuse(said + " ends with " + std::to_string(offsets.back()) + ", not " +
           std::to_string(length));
  }
}

}  // namespace

Plan::Plan(const PlanArrays& arrays)
    : run_segments_(copied(arrays.run_segments)),
      segment_tokens_(copied(arrays.segment_tokens)),
      segment_offsets_(copied(arrays.segment_offsets)),
      block_ids_(copied(arrays.block_ids)) {
  if (arrays.run_rows.size() % 2 != 0) refuse("run_rows is not a list of pairs");
  check_offsets("run_offsets", arrays.run_offsets, arrays.run_rows.size() / 2,
                run_segments_.size());
  check_offsets("segment_offsets", segment_offsets_, segment_tokens_.size(), block_ids_.size());
  check_segments();
  if (!block_ids_.empty()) last_block_ = *std::max_element(block_ids_.begin(), block_ids_.end());
  add_runs(arrays);
}

void Plan::check_segments() const {
  for (const std::int32_t block : block_ids_) {
    if (block < 0) refuse("block_ids has " + std::to_string(block));
  }
  for (std::size_t s = 0; s < segment_tokens_.size(); ++s) {
    const std::int64_t tokens = segment_tokens_[s];
    const std::int64_t blocks = segment_offsets_[s + 1] - segment_offsets_[s];
    if (tokens < 0 || tokens > blocks * kBlockTokens) {
      refuse("segment_tokens has " + std::to_string(tokens) + " tokens in " +
             std::to_string(blocks) + " blocks of segment " + std::to_string(s));
    }
  }
  for (const std::int32_t segment : run_segments_) {
    if (segment < 0 || segment >= num_segments()) {
      refuse("run_segments has " + std::to_string(segment) + " of " +
             std::to_string(num_segments()) + " segments");
    }
  }
}

void Plan::add_runs(const PlanArrays& arrays) {
  const std::span<const std::int32_t> segments = run_segments_;
  for (std::size_t r = 0; r + 1 < arrays.run_offsets.size(); ++r) {
    const auto begin = static_cast<std::size_t>(arrays.run_offsets[r]);
    const auto end = static_cast<std::size_t>(arrays.run_offsets[r + 1]);
    add_run({arrays.run_rows[2 * r], arrays.run_rows[2 * r + 1],
             segments.subspan(begin, end - begin)});
  }
}

void Plan::add_run(const Run& run) {
  const std::int64_t end = static_cast<std::int64_t>(run.first_row) + run.num_rows;
  if (run.first_row < 0 || run.num_rows < 0 || end > INT32_MAX) {
    refuse("run_rows has " + std::to_string(run.num_rows) + " rows from row " +
           std::to_string(run.first_row));
  }
  if (!run.segments.empty() && tokens(run.segments.back()) < run.num_rows) {
    refuse("run_rows has " + std::to_string(run.num_rows) + " rows in a segment of " +
           std::to_string(tokens(run.segments.back())) + " tokens");
  }
  end_row_ = std::max(end_row_, static_cast<std::int32_t>(end));
  if (has_row_.size() < static_cast<std::size_t>(end_row_)) {
    has_row_.resize(static_cast<std::size_t>(end_row_));
  }
  for (std::int64_t row = run.first_row; row < end; ++row) {
    if (has_row_[static_cast<std::size_t>(row)]) {
      refuse("run_rows has row " + std::to_string(row) + " twice");
    }
    has_row_[static_cast<std::size_t>(row)] = !run.segments.empty();
  }
  if (run.num_rows > 0 && !run.segments.empty()) runs_.push_back(run);
}

}  // namespace thoth

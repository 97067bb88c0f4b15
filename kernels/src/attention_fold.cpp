#include "attention_fold.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "attention_kernel.h"

namespace thoth {
namespace {

// Rows that a task takes.
constexpr int kRowsPerTask = 16;

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

void check_numbers(const char* name, std::span<const std::int32_t> numbers, std::int64_t count) {
  for (const std::int32_t number : numbers) {
    if (number < 0 || number >= count) {
      refuse(std::string(name) + " has " + std::to_string(number) + " of " +
             std::to_string(count));
    }
  }
}

void check(const FoldArrays& fold, std::int64_t num_parts, std::int64_t num_rows) {
  const std::span<const std::int32_t> offsets = fold.offsets;
  if (offsets.size() != fold.rows.size() + 1 || offsets.front() != 0 ||
      static_cast<std::size_t>(offsets.back()) != fold.parts.size() ||
      !std::is_sorted(offsets.begin(), offsets.end())) {
    refuse("offsets does not cut parts into a piece for each of rows");
  }
  check_numbers("rows", fold.rows, num_rows);
  check_numbers("parts", fold.parts, num_parts);
}

}  // namespace

void fold_parts(const FoldArrays& fold, const States<const float>& parts, const States<float>& rows,
                int heads, int head_dim, Threads& threads) {
  check(fold, parts.count, rows.count);
  const AttentionKernels& kernels = attention_kernels();
  const auto num_heads = static_cast<std::size_t>(heads), dim = static_cast<std::size_t>(head_dim);
  const auto fold_row = [&](std::size_t i) {
    const auto begin = static_cast<std::size_t>(fold.offsets[i]);
    const auto end = static_cast<std::size_t>(fold.offsets[i + 1]);
    if (begin == end) return;
    const std::size_t row = static_cast<std::size_t>(fold.rows[i]) * num_heads;
    const std::size_t first = static_cast<std::size_t>(fold.parts[begin]) * num_heads;
    std::copy_n(parts.o + first * dim, num_heads * dim, rows.o + row * dim);
    std::copy_n(parts.lse + first, num_heads, rows.lse + row);
    for (std::size_t p = begin + 1; p < end; ++p) {
      const std::size_t part = static_cast<std::size_t>(fold.parts[p]) * num_heads;
      for (std::size_t head = 0; head < num_heads; ++head) {
        kernels.merge(rows.o + (row + head) * dim, rows.lse + row + head,
                      parts.o + (part + head) * dim, parts.lse[part + head], head_dim);
      }
    }
  };
  const std::size_t count = fold.rows.size();
  const auto num_tasks = static_cast<int>((count + kRowsPerTask - 1) / kRowsPerTask);
  threads.run(num_tasks, [&](int task, int) {
    const std::size_t begin = static_cast<std::size_t>(task) * kRowsPerTask;
    for (std::size_t i = begin; i < std::min(count, begin + kRowsPerTask); ++i) fold_row(i);
  });
}

}  // namespace thoth

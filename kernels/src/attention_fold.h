// Rows whose states were computed in parts, by several callers or over several memories.
#pragma once

#include <cstdint>
#include <span>

#include "threads.h"

namespace thoth {

// Which parts make which rows, folded from left to right; cluster/attention/split.py says more.
struct FoldArrays {
  std::span<const std::int32_t> rows;
  std::span<const std::int32_t> offsets;  // [rows + 1]
  std::span<const std::int32_t> parts;
};

// States [count, heads, head_dim] and [count, heads]: of parts, or of the rows they are folded to.
template <typename Float>
struct States {
  Float* o;
  Float* lse;
  std::int64_t count;
};

// Writes the rows that the arrays name, and no others. The bits are those of the rows' attention in
// one piece. Throws std::invalid_argument for rows and parts that are not there.
void fold_parts(const FoldArrays& fold, const States<const float>& parts, const States<float>& rows,
                int heads, int head_dim, Threads& threads);

}  // namespace thoth

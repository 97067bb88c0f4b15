// Fetching weights before they are asked for. Only for *_kernel.cpp.
#pragma once

#include "linear_vector.h"

namespace thoth::THOTH_ISA {
namespace {

// For rows that read their weights once: memory is the limit, and the next lines must be on their
// way all the time.
struct Near {
  static constexpr long kBytes = 2048;

  const char* place;
  long line;

  THOTH_INLINE Near(const void* weights, long line)
      : place(static_cast<const char*>(weights) + kBytes), line(line) {}
  THOTH_INLINE void step() {
    __builtin_prefetch(place, 0, 3);
    place += line;
  }
};

// For strips that read the same `size` bytes one after the other: each fetches its share of the
// `size` bytes that follow, so that memory works while all of them compute. It goes no nearer than
// the second cache, because the first is full of what is read now.
struct Shared {
  const char* place;
  long line;

  // The strip of `rows` rows begins at row `first` of `all`.
  THOTH_INLINE Shared(const void* weights, long size, long line, int first, int rows, int all)
      : place(static_cast<const char*>(weights) + size + size * first / all),
        line((line * rows + all - 1) / all) {}
  THOTH_INLINE void step() {
    __builtin_prefetch(place, 0, 2);
    place += line;
  }
};

}  // namespace
}  // namespace thoth::THOTH_ISA

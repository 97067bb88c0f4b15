// Memory for weights, taken piece by piece and given back all at once.
#pragma once

#include <cstddef>
#include <vector>

#include "linear_buffer.h"

namespace thoth {

// Pieces lie next to each other in a few large allocations, because matrices of a small model are
// smaller than a huge page, and read 10% faster when they share one.
class Arena {
 public:
  // Uninitialised elements, aligned to a cache line, valid as long as the arena.
  template <typename Element>
  Element* take(std::size_t count) {
    const std::size_t size = (count * sizeof(Element) + kLine - 1) / kLine * kLine;
    if (chunks_.empty() || chunks_.back().count() - used_ < size) {
      chunks_.emplace_back(size > kChunk ? size : kChunk);
      used_ = 0;
    }
    char* place = chunks_.back().get() + used_;
    used_ += size;
    total_ += size;
    return reinterpret_cast<Element*>(place);
  }

  // What was taken. Pages of a chunk that were not are never touched.
  std::size_t bytes() const { return total_; }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kChunk = std::size_t{1} << 26;

  std::vector<Buffer<char>> chunks_;
  std::size_t used_ = 0;
  std::size_t total_ = 0;
};

}  // namespace thoth

// Memory for weights and scratch.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace thoth {

// Uninitialised elements of a plain type, aligned to a cache line. Large ones ask for huge pages:
// weights are read from end to end in every step, and small pages would cost a walk each.
template <typename Element>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t count) : count_(count) {
    if (count == 0) return;
    // A multiple of the alignment, as aligned_alloc wants; what is never touched costs nothing.
    const std::size_t align = bytes() >= kHugePage ? kHugePage : kLine;
    const std::size_t size = (bytes() + align - 1) / align * align;
    elements_ = static_cast<Element*>(std::aligned_alloc(align, size));
    if (elements_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (align == kHugePage) madvise(elements_, size, MADV_HUGEPAGE);
#endif
  }
  ~Buffer() { std::free(elements_); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  // At least `count` elements; what they held is lost when there were fewer.
  void grow(std::size_t count) {
    if (count > count_) *this = Buffer(count);
  }

  Element* get() { return elements_; }
  const Element* get() const { return elements_; }
  std::size_t count() const { return count_; }
  std::size_t bytes() const { return count_ * sizeof(Element); }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kHugePage = std::size_t{1} << 21;

  void swap(Buffer& other) {
    std::swap(elements_, other.elements_);
    std::swap(count_, other.count_);
  }

  Element* elements_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace thoth

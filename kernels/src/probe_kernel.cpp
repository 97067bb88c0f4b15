// What the machine can do at most, for benchmarks to hold the kernels against.
#include "probe_kernel.h"

#include "attention_simd.h"

namespace thoth::THOTH_ISA {
namespace {

float read_all(const char* data, std::size_t bytes) {
  constexpr std::size_t kLine = 64, kStep = 4 * kLine, kAhead = 32 * kLine;
  Vec sums[4] = {};
  for (std::size_t at = 0; at + kStep <= bytes; at += kStep) {
    const float* p = reinterpret_cast<const float*>(data + at);
    for (std::size_t line = 0; line < 4; ++line) {
      prefetch(data + at + kAhead + line * kLine);
      for (int i = 0; i < 16; i += kLanes) sums[line] += load(p + line * 16 + i);
    }
  }
  return sum_of(sums[0] + sums[1] + sums[2] + sums[3]);
}

float multiply_add_all(long rounds) {
  Vec sums[12];
  for (int i = 0; i < 12; ++i) sums[i] = broadcast(static_cast<float>(i));
  const Vec x = broadcast(0.5f);
  for (long round = 0; round < rounds; ++round) {
    for (int step = 0; step < 16; ++step) {
      for (Vec& sum : sums) sum = multiply_add(sum, x, x);
    }
  }
  Vec total = sums[0];
  for (int i = 1; i < 12; ++i) total += sums[i];
  return sum_of(total);
}

}  // namespace

extern const ProbeKernels probe_kernels;
const ProbeKernels probe_kernels{kLanes, read_all, multiply_add_all};

}  // namespace thoth::THOTH_ISA

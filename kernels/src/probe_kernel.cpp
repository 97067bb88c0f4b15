// What the machine can do at most, for benchmarks to hold the kernels against.
#include "probe_kernel.h"

#include "attention_simd.h"

namespace thoth::THOTH_ISA {
namespace {

// Pages side by side: one core reads several streams at once faster than any single one.
float read_all(const char* data, std::size_t bytes) {
  constexpr std::size_t kLine = 64, kPage = 4096, kStreams = 8;
  Vec sums[kStreams] = {};
  for (std::size_t at = 0; at + kStreams * kPage <= bytes; at += kStreams * kPage) {
    for (std::size_t line = 0; line < kPage; line += kLine) {
      THOTH_UNROLL
      for (std::size_t stream = 0; stream < kStreams; ++stream) {
        const auto* p = reinterpret_cast<const float*>(data + at + stream * kPage + line);
        THOTH_UNROLL
        for (int i = 0; i < 16; i += kLanes) sums[stream] += load(p + i);
      }
    }
  }
  for (std::size_t stream = 1; stream < kStreams; ++stream) sums[0] += sums[stream];
  return sum_of(sums[0]);
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

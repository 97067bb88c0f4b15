// What the machine can do at most. Plain declarations alone, as in attention_kernel.h.
#pragma once

#include <cstddef>

namespace thoth {

// Multiply-adds of a vector in one round of `multiply_add_all`.
constexpr int kProbeSteps = 12 * 16;

struct ProbeKernels {
  int lanes;
  // Reads everything but the rest of 32 KiB, as fast as it can; the number depends on all of it.
  float (*read_all)(const char* data, std::size_t bytes);
  // kProbeSteps multiply-adds a round, 12 independent chains of them.
  float (*multiply_add_all)(long rounds);
};

// Those of `isa()`.
const ProbeKernels& probe_kernels();

}  // namespace thoth

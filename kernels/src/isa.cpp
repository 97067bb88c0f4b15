#include "isa.h"

#include <atomic>

namespace thoth {
namespace {

std::atomic<bool> baseline_preferred{false};

bool has_x86_64_v3() {
#if defined(THOTH_HAS_X86_64_V3)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

}  // namespace

Isa isa() {
  static const bool v3 = has_x86_64_v3();
  return v3 && !baseline_preferred.load(std::memory_order_relaxed) ? Isa::x86_64_v3 : Isa::baseline;
}

void prefer_baseline(bool on) { baseline_preferred.store(on); }

const char* isa_name(Isa isa) { return isa == Isa::x86_64_v3 ? "x86-64-v3" : "baseline"; }

}  // namespace thoth

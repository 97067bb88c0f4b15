// Which instruction set the kernels run on, chosen once.
#pragma once

namespace thoth {

enum class Isa { baseline, x86_64_v3 };

// The best that this machine has and this build holds, or the baseline when
// `prefer_baseline(true)` was called.
Isa isa();

// For tests and benchmarks: back to the baseline, whatever the machine has.
void prefer_baseline(bool on);

// "baseline" or "x86-64-v3".
const char* isa_name(Isa isa);

}  // namespace thoth

#include "attention_append_kernel.h"
#include "attention_kernel.h"
#include "isa.h"
#include "probe_kernel.h"

namespace thoth {

namespace baseline {
extern const AttentionKernels attention_kernels;
extern const Append append_kernel;
extern const ProbeKernels probe_kernels;
}  // namespace baseline

#if defined(THOTH_HAS_X86_64_V3)
namespace x86_64_v3 {
extern const AttentionKernels attention_kernels;
extern const Append append_kernel;
extern const ProbeKernels probe_kernels;
}  // namespace x86_64_v3
#define THOTH_KERNEL(name) (isa() == Isa::x86_64_v3 ? x86_64_v3::name : baseline::name)
#else
#define THOTH_KERNEL(name) (baseline::name)
#endif

const AttentionKernels& attention_kernels() { return THOTH_KERNEL(attention_kernels); }
Append append_kernel() { return THOTH_KERNEL(append_kernel); }
const ProbeKernels& probe_kernels() { return THOTH_KERNEL(probe_kernels); }

}  // namespace thoth

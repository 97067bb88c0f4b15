#include "linear_kernels.h"

#include "isa.h"

namespace thoth {

namespace baseline {
extern const LinearKernels linear_kernels;
}
#if defined(THOTH_HAS_X86_64_V3)
namespace x86_64_v3 {
extern const LinearKernels linear_kernels;
}
#endif

const LinearKernels& linear_kernels() {
#if defined(THOTH_HAS_X86_64_V3)
  if (isa() == Isa::x86_64_v3) return x86_64_v3::linear_kernels;
#endif
  return baseline::linear_kernels;
}

}  // namespace thoth

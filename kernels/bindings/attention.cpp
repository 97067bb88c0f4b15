#include "bindings.h"

namespace nb = nanobind;

namespace thoth::bindings {

void bind_attention(nb::module_&) {}

}  // namespace thoth::bindings

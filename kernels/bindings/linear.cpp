#include "bindings.h"

namespace nb = nanobind;

namespace thoth::bindings {

void bind_linear(nb::module_&) {}

}  // namespace thoth::bindings

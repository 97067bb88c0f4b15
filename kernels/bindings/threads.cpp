#include "threads.h"

#include "bindings.h"
#include "isa.h"

namespace nb = nanobind;

namespace thoth::bindings {

void bind_threads(nb::module_& module) {
  nb::class_<Threads>(module, "Threads", "Threads of one engine; used by one caller at a time.")
      .def(nb::init<int>(), nb::arg("count"))
      .def_prop_ro("count", &Threads::count);
  module.def("isa", [] { return isa_name(isa()); }, "The instruction set in use.");
  module.def("prefer_baseline", &prefer_baseline, nb::arg("on"),
             "Run the baseline kernels, whatever the machine has: for tests and comparisons.");
}

}  // namespace thoth::bindings

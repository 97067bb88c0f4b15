// One function for each part of the module; `module.cpp` calls them all.
#pragma once

#include <nanobind/nanobind.h>

namespace thoth::bindings {

void bind_threads(nanobind::module_& module);
void bind_attention(nanobind::module_& module);
void bind_linear(nanobind::module_& module);
void bind_channel(nanobind::module_& module);

}  // namespace thoth::bindings

#include "bindings.h"

NB_MODULE(thoth_kernels, module) {
  module.doc() = "Attention and linear layers on the CPU; arrays come and go by DLPack.";
  // An engine lives as long as its process, and nobody frees it in its last moment.
  nanobind::set_leak_warnings(false);
  thoth::bindings::bind_threads(module);
  thoth::bindings::bind_attention(module);
  thoth::bindings::bind_linear(module);
  thoth::bindings::bind_channel(module);
}

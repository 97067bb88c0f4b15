#include "bindings.h"

NB_MODULE(thoth_kernels, module) {
  module.doc() = "Attention and linear layers on the CPU; arrays come and go by DLPack.";
  thoth::bindings::bind_threads(module);
  thoth::bindings::bind_attention(module);
  thoth::bindings::bind_linear(module);
}

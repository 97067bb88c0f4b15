// Writing keys and values into their blocks. Plain structs alone, as in attention_kernel.h.
#pragma once

#include "attention_kernel.h"

namespace thoth {

struct AppendRows {
  const float* k;  // [num_rows, kv_heads, head_dim]
  const float* v;
  const std::int64_t* slots;  // [num_rows]
  char* k_cache;
  char* v_cache;
  std::ptrdiff_t k_stride;  // bytes from one block to the next
  std::ptrdiff_t v_stride;
  KvType type;
  int kv_heads;
  int head_dim;
};

// Writes rows [begin, end) into their slots, rounded to nearest even.
using Append = void (*)(const AppendRows& rows, int begin, int end);

// That of `isa()`.
Append append_kernel();

}  // namespace thoth

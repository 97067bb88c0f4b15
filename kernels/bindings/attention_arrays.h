// Arguments of attention: plans, and blocks of keys and values.
#pragma once

#include "arrays.h"
#include "attention.h"

namespace thoth::bindings {

template <>
constexpr const char* element_name<std::int32_t>() {
  return "int32";
}

// A list of numbers, where it lies.
std::span<const std::int32_t> numbers(const Array& array, const char* name);

PlanArrays plan_arrays(const Array& run_rows, const Array& run_offsets, const Array& run_segments,
                       const Array& segment_tokens, const Array& segment_offsets,
                       const Array& block_ids);

// The blocks of a layer, any distance apart.
KvCache kv_cache(const Array& k, const Array& v);

// -1 where there is no such axis.
long size_of(const Array& array, std::size_t axis);

}  // namespace thoth::bindings

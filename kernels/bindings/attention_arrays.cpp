#include "attention_arrays.h"

#include <string>

namespace nb = nanobind;

namespace thoth::bindings {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw nb::value_error(what.c_str()); }

KvType kv_type(const char* name, const Array& array) {
  constexpr nb::dlpack::dtype kFloat16{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float), 16,
                                       1};
  constexpr nb::dlpack::dtype kBFloat16{
      static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat), 16, 1};
  if (array.dtype() == nb::dtype<float>()) return KvType::float32;
  if (array.dtype() == kFloat16) return KvType::float16;
  if (array.dtype() == kBFloat16) return KvType::bfloat16;
  refuse(std::string(name) + " is float32, float16 or bfloat16");
}

// Blocks any distance apart, each [kv_heads, rows, columns] without gaps.
void check_blocks(const char* name, const Array& array) {
  bool fits = array.ndim() == 4 && array.device_type() == nb::device::cpu::value;
  std::int64_t step = 1;
  for (std::size_t i = 4; fits && i-- > 1;) {
    const auto size = static_cast<std::int64_t>(array.shape(i));
    fits = size > 0 && (size == 1 || array.stride(i) == step);
    step *= size;
  }
  if (!fits) {
    refuse(std::string(name) + " is 4 axes on the cpu, contiguous in the last three");
  }
}

}  // namespace

KvCache kv_cache(const Array& k, const Array& v) {
  check_blocks("k_cache", k);
  check_blocks("v_cache", v);
  const KvType type = kv_type("k_cache", k);
  if (kv_type("v_cache", v) != type) refuse("v_cache has another type than k_cache");
  if (k.shape(3) != kBlockTokens) refuse("k_cache is [blocks, kv_heads, head_dim, 16]");
  if (v.shape(0) != k.shape(0) || v.shape(1) != k.shape(1) || v.shape(2) != kBlockTokens ||
      v.shape(3) != k.shape(2)) {
    refuse("v_cache is [blocks, kv_heads, 16, head_dim] of the same sizes as k_cache");
  }
  const auto bytes = static_cast<std::ptrdiff_t>(k.itemsize());
  return {static_cast<char*>(k.data()),
          static_cast<char*>(v.data()),
          k.stride(0) * bytes,
          v.stride(0) * bytes,
          static_cast<std::int64_t>(k.shape(0)),
          static_cast<int>(k.shape(1)),
          static_cast<int>(k.shape(2)),
          type};
}

std::span<const std::int32_t> numbers(const Array& array, const char* name) {
  return {elements<std::int32_t>(array, name, {-1}), array.shape(0)};
}

PlanArrays plan_arrays(const Array& run_rows, const Array& run_offsets, const Array& run_segments,
                       const Array& segment_tokens, const Array& segment_offsets,
                       const Array& block_ids) {
  const std::int32_t* rows = elements<std::int32_t>(run_rows, "run_rows", {-1, 2});
  return {{rows, 2 * run_rows.shape(0)},
          numbers(run_offsets, "run_offsets"),
          numbers(run_segments, "run_segments"),
          numbers(segment_tokens, "segment_tokens"),
          numbers(segment_offsets, "segment_offsets"),
          numbers(block_ids, "block_ids")};
}

long size_of(const Array& array, std::size_t axis) {
  return axis < array.ndim() ? static_cast<long>(array.shape(axis)) : -1;
}

}  // namespace thoth::bindings

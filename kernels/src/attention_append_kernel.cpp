// Keys and values into their blocks: a key goes across its block, a value along it.
#include "attention_append_kernel.h"

#include "attention_simd.h"

namespace thoth::THOTH_ISA {
namespace {

THOTH_INLINE void narrow(float x, float* out) { *out = x; }

THOTH_INLINE void narrow(float x, BFloat16* out) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const std::uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  out->bits = static_cast<std::uint16_t>(is_nan ? 0x7fc0u : rounded >> 16);
}

THOTH_INLINE void narrow(float x, Float16* out) {
#if defined(__F16C__)
  out->bits = static_cast<std::uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
#else
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65,520, from where on the nearest is infinity
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // 2^-14: the sum's last bit is worth the least subnormal
    float small;
    __builtin_memcpy(&small, &magnitude, sizeof small);
    small += 0.5f;
    __builtin_memcpy(&half, &small, sizeof half);
    half -= 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  out->bits = static_cast<std::uint16_t>(sign | half);
#endif
}

template <typename T>
void append_rows(const AppendRows& rows, int begin, int end) {
  const std::ptrdiff_t head_dim = rows.head_dim;
  for (int row = begin; row < end; ++row) {
    const std::int64_t block = rows.slots[row] / kBlockTokens;
    const std::int64_t offset = rows.slots[row] % kBlockTokens;
    T* keys = reinterpret_cast<T*>(rows.k_cache + block * rows.k_stride) + offset;
    T* values = reinterpret_cast<T*>(rows.v_cache + block * rows.v_stride) + offset * head_dim;
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(row) * rows.kv_heads * head_dim;
    const float* k = rows.k + first;
    const float* v = rows.v + first;
    for (int head = 0; head < rows.kv_heads; ++head) {
      for (std::ptrdiff_t d = 0; d < head_dim; ++d) narrow(k[d], keys + d * kBlockTokens);
      for (std::ptrdiff_t d = 0; d < head_dim; ++d) narrow(v[d], values + d);
      k += head_dim;
      v += head_dim;
      keys += head_dim * kBlockTokens;
      values += head_dim * kBlockTokens;
    }
  }
}

void append(const AppendRows& rows, int begin, int end) {
  switch (rows.type) {
    case KvType::float32: return append_rows<float>(rows, begin, end);
    case KvType::float16: return append_rows<Float16>(rows, begin, end);
    case KvType::bfloat16: return append_rows<BFloat16>(rows, begin, end);
  }
}

}  // namespace

extern const Append append_kernel;
const Append append_kernel = append;

}  // namespace thoth::THOTH_ISA

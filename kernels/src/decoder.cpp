#include "decoder.h"

#include <algorithm>

namespace thoth {
namespace {

// Rows that many bytes apart that are multiplied together must not fall on the same lines of the
// first cache, as they would at a multiple of 4096 bytes.
long padded(int width) { return (width + 15L) / 16 * 16 + 16; }

std::vector<float> copy(const float* values, int count) {
  return values == nullptr ? std::vector<float>{} : std::vector<float>(values, values + count);
}

float* room(Buffer<float>& buffer, int rows, int width) {
  buffer.grow(static_cast<std::size_t>(rows * padded(width)));
  return buffer.get();
}

}  // namespace

Decoder::Decoder(DecoderShape shape, const EndWeights& ends, Threads& threads)
    : shape_(shape),
      threads_(threads),
      embedding_(pack(ends.embedding, nullptr, shape.vocab, shape.hidden, Kind::plain)),
      norm_(copy(ends.norm, shape.hidden)) {
  if (ends.head != nullptr) {
    head_.push_back(pack(ends.head, nullptr, shape.vocab, shape.hidden, Kind::plain));
  }
}

Linear Decoder::pack(const float* weights, const float* bias, int outputs, int inputs,
                     Kind kind) {
  return Linear(weights, bias, {outputs, inputs, shape_.precision, kind}, arena_, threads_);
}

void Decoder::add_layer(const LayerWeights& w) {
  const DecoderShape& s = shape_;
  layers_.push_back(Layer{
      copy(w.attention_norm, s.hidden),
      copy(w.q_norm, s.head_dim),
      copy(w.k_norm, s.head_dim),
      copy(w.mlp_norm, s.hidden),
      pack(w.qkv, w.qkv_bias, s.qkv_width(), s.hidden, Kind::plain),
      pack(w.output, nullptr, s.hidden, s.q_width(), Kind::plain),
      pack(w.gate_up, nullptr, 2 * s.inner, s.hidden, Kind::gated),
      pack(w.down, nullptr, s.hidden, s.inner, Kind::plain),
  });
}

void Decoder::embed(const std::int64_t* ids, const StepRows& rows) {
  for_rows(threads_, rows.count, [&](int row) {
    embedding_.read(static_cast<int>(ids[row]), rows.x + static_cast<long>(row) * shape_.hidden);
  });
}

RowsIn Decoder::normed(const Norm& norm, const StepRows& rows) {
  const int width = shape_.hidden;
  float* out = room(normed_, rows.count, width);
  const auto& kernels = linear_kernels();
  for_rows(threads_, rows.count, [&](int row) {
    kernels.rms_norm(rows.x + static_cast<long>(row) * width, norm.data(), width, shape_.epsilon,
                     out + row * padded(width));
  });
  return {out, padded(width), rows.count};
}

void Decoder::project(int index, const StepRows& rows) {
  const Layer& layer = layers_[static_cast<std::size_t>(index)];
  const int width = shape_.qkv_width();
  float* qkv = room(qkv_, rows.count, width);
  layer.qkv.apply(normed(layer.attention_norm, rows), Into::fresh, {qkv, padded(width)}, levels_,
                  threads_);
  for_rows(threads_, rows.count, [&](int row) { turn(layer, rows, row); });
}

// One row of qkv into q, k and v.
void Decoder::turn(const Layer& layer, const StepRows& rows, int row) {
  const long q_width = shape_.q_width();
  const long kv_width = shape_.kv_width();
  const float* qkv = qkv_.get() + row * padded(shape_.qkv_width());
  turn_heads(layer.q_norm, rows, row, qkv, shape_.heads, rows.q + row * q_width);
  turn_heads(layer.k_norm, rows, row, qkv + q_width, shape_.kv_heads, rows.k + row * kv_width);
  const float* v = qkv + q_width + kv_width;
  std::copy(v, v + kv_width, rows.v + row * kv_width);
}

void Decoder::turn_heads(const Norm& norm, const StepRows& rows, int row, const float* from,
                         int heads, float* to) const {
  const auto& kernels = linear_kernels();
  const int head_dim = shape_.head_dim;
  const int half = head_dim / 2;
  const float* cos = rows.cos + static_cast<long>(row) * half;
  const float* sin = rows.sin + static_cast<long>(row) * half;
  for (int head = 0; head < heads; ++head, from += head_dim, to += head_dim) {
    if (!norm.empty()) kernels.rms_norm(from, norm.data(), head_dim, shape_.epsilon, to);
    kernels.rotate(norm.empty() ? from : to, cos, sin, half, to);
  }
}

void Decoder::finish(int index, const StepRows& rows, const float* o) {
  const Layer& layer = layers_[static_cast<std::size_t>(index)];
  const RowsOut x{rows.x, shape_.hidden};
  layer.output.apply({o, shape_.q_width(), rows.count}, Into::sum, x, levels_, threads_);
  const long stride = padded(shape_.inner);
  float* inner = room(inner_, rows.count, shape_.inner);
  layer.gate_up.apply(normed(layer.mlp_norm, rows), Into::fresh, {inner, stride}, levels_,
                      threads_);
  layer.down.apply({inner, stride, rows.count}, Into::sum, x, levels_, threads_);
}

void Decoder::logits(const StepRows& rows, const std::int64_t* chosen, int count, float* out) {
  const int width = shape_.hidden;
  float* last = room(normed_, count, width);
  const auto& kernels = linear_kernels();
  for_rows(threads_, count, [&](int i) {
    kernels.rms_norm(rows.x + static_cast<long>(chosen[i]) * width, norm_.data(), width,
                     shape_.epsilon, last + i * padded(width));
  });
  head().apply({last, padded(width), count}, Into::fresh, {out, shape_.vocab}, levels_, threads_);
}

}  // namespace thoth

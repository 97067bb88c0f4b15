// A decoder but for its attention: embedding, what stands before and after each layer's attention,
// and the head.
#pragma once

#include <cstdint>
#include <vector>

#include "linear.h"

namespace thoth {

struct DecoderShape {
  int hidden;
  int inner;
  int heads;
  int kv_heads;
  int head_dim;
  int vocab;
  float epsilon;
  Precision precision;

  int q_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  int qkv_width() const { return q_width() + 2 * kv_width(); }
};

// float32, contiguous; matrices are [outputs, inputs]. What a family has not is null.
struct LayerWeights {
  const float* attention_norm;  // [hidden]
  const float* qkv;             // [qkv_width, hidden]
  const float* qkv_bias;        // [qkv_width] or null
  const float* q_norm;          // [head_dim] or null
  const float* k_norm;          // [head_dim] or null
  const float* output;          // [hidden, q_width]
  const float* mlp_norm;        // [hidden]
  const float* gate_up;         // [2 * inner, hidden]
  const float* down;            // [hidden, inner]
};

struct EndWeights {
  const float* embedding;  // [vocab, hidden]
  const float* head;       // [vocab, hidden], or null: the embedding
  const float* norm;       // [hidden]
};

// The rows of one step. All contiguous, the caller's.
struct StepRows {
  int count;
  const float* cos;  // [count, head_dim / 2]
  const float* sin;
  float* x;  // [count, hidden]: what runs from layer to layer
  float* q;  // [count, heads, head_dim]
  float* k;  // [count, kv_heads, head_dim]
  float* v;
};

// Used by one caller at a time: the scratch is its own.
class Decoder {
 public:
  Decoder(DecoderShape shape, const EndWeights& ends, Threads& threads);

  // The weights are packed, not kept.
  void add_layer(const LayerWeights& weights);

  int num_layers() const { return static_cast<int>(layers_.size()); }
  const DecoderShape& shape() const { return shape_; }
  // What the packed weights take.
  std::size_t bytes() const { return arena_.bytes(); }

  // x = embedding rows of ids [count], each in [0, vocab).
  void embed(const std::int64_t* ids, const StepRows& rows);
  // q, k, v from x, q and k turned.
  void project(int layer, const StepRows& rows);
  // x from x and attention's o [count, q_width].
  void finish(int layer, const StepRows& rows, const float* o);
  // out [count, vocab] of the rows `chosen` [count], each in [0, rows.count).
  void logits(const StepRows& rows, const std::int64_t* chosen, int count, float* out);

 private:
  using Norm = std::vector<float>;  // empty: there is none

  struct Layer {
    Norm attention_norm, q_norm, k_norm, mlp_norm;
    Linear qkv, output, gate_up, down;
  };

  Linear pack(const float* weights, const float* bias, int outputs, int inputs, Kind kind);
  const Linear& head() const { return head_.empty() ? embedding_ : head_.front(); }
  RowsIn normed(const Norm& norm, const StepRows& rows);
  void turn(const Layer& layer, const StepRows& rows, int row);
  void turn_heads(const Norm& norm, const StepRows& rows, int row, const float* from, int heads,
                  float* to) const;

  DecoderShape shape_;
  Threads& threads_;
  Arena arena_;
  Linear embedding_;
  std::vector<Linear> head_;  // one, or none when the embedding is the head
  Norm norm_;
  std::vector<Layer> layers_;

  // Scratch, [rows, ...]; strides are `padded`.
  Buffer<float> normed_, qkv_, inner_;
  Levels levels_;
};

}  // namespace thoth

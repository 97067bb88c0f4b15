// Linear layers on packed weights, float32 or int8. A row's result does not depend on the rows
// beside it, nor on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "linear_arena.h"
#include "linear_buffer.h"
#include "linear_kernels.h"
#include "threads.h"

namespace thoth {

// int8: weights are symmetric integers in [-127, 127] with a scale for each output. Activations are
// integers too, with a scale for each row, and as wide as the sums in int32 allow without ever
// overflowing (`Linear::limit`): the multiplication reads them as 16 bits anyway, so finer steps
// are free, and what is lost is lost by the weights alone.
enum class Precision { float32, int8 };

// gated: the weights are those of a gate [n, inputs] and of as many more outputs, and the layer
// computes silu(gate(x)) * up(x), [n].
enum class Kind { plain, gated };

// What is done with the result: written, or added to what is there.
enum class Into { fresh, sum };

// Rows of float32, `stride` elements apart.
struct RowsIn {
  const float* values;
  long stride;
  int count;
};

struct RowsOut {
  float* values;
  long stride;
};

// Rows as an int8 layer takes them: scratch that layers share one after the other.
struct Levels {
  Buffer<std::int16_t> levels;
  Buffer<float> scales;
};

class Linear {
 public:
  struct Shape {
    int outputs;
    int inputs;
    Precision precision = Precision::float32;
    Kind kind = Kind::plain;
  };

  // `weights` is [outputs, inputs], `bias` [outputs] or null; both are packed into the arena, which
  // has to outlive the layer.
  Linear(const float* weights, const float* bias, Shape shape, Arena& arena, Threads& threads);

  // out [count, columns()] = x [count, inputs] * weights + bias, gated or not. `levels` is used by
  // int8 layers only.
  void apply(RowsIn x, Into into, RowsOut out, Levels& levels, Threads& threads) const;

  // The weights of one output as the layer has them: for an embedding that is its own head. Only
  // for the plain kind.
  void read(int output, float* weights) const;

  int inputs() const { return shape_.inputs; }
  int outputs() const { return shape_.outputs; }
  int columns() const { return shape_.kind == Kind::gated ? shape_.outputs / 2 : shape_.outputs; }
  // Levels of activations lie in [-limit, limit].
  int limit() const { return limit_; }

 private:
  struct Block;

  int panels() const { return (columns() + panel_columns() - 1) / panel_columns(); }
  int panel_columns() const { return shape_.kind == Kind::gated ? kPanel / 2 : kPanel; }
  int pairs() const { return (shape_.inputs + 1) / 2; }
  int output_of(int panel, int lane) const;
  int block_rows(int rows) const;

  void pack_floats(const float* weights, Arena& arena, Threads& threads);
  void pack_int8s(const float* weights, Arena& arena, Threads& threads);
  long pack_int8_row(const float* weights, int panel, int lane);
  void pack_bias(const float* bias, Arena& arena);
  LevelRows quantise(RowsIn x, Levels& levels, Threads& threads) const;
  void multiply(const Block& block, int panel, float* tile) const;

  Shape shape_;
  int limit_ = 0;
  // As linear_kernels.h says; the ones that the precision does not need are null.
  float* floats_ = nullptr;
  std::int8_t* int8s_ = nullptr;
  float* scales_ = nullptr;  // [panels][16]
  float* bias_ = nullptr;    // [panels][16], or null
};

// Calls body(row) for every row, a few rows to a task.
template <typename Body>
void for_rows(Threads& threads, int rows, Body&& body) {
  constexpr int kRows = 8;
  threads.run((rows + kRows - 1) / kRows, [&](int task, int) {
    const int end = (task + 1) * kRows < rows ? (task + 1) * kRows : rows;
    for (int row = task * kRows; row < end; ++row) body(row);
  });
}

}  // namespace thoth

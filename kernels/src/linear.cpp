#include "linear.h"

#include <algorithm>

namespace thoth {
namespace {

// Rows of a block stay in the second cache while all panels pass by them.
constexpr long kBlockBytes = 256 * 1024;
constexpr int kStripRows = 6;
constexpr int kTasksPerThread = 4;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace

struct Linear::Block {
  int first;
  int rows;
  FloatRows floats;
  LevelRows levels;
};

// A multiple of the strip, so that no block but the last ends in a small one.
int Linear::block_rows(int rows) const {
  const long element = shape_.precision == Precision::int8 ? 2 : 4;
  const long fitting = kBlockBytes / (element * shape_.inputs) / kStripRows * kStripRows;
  const int most = static_cast<int>(std::clamp<long>(fitting, 4 * kStripRows, kBlockRows));
  return ceil_div(ceil_div(rows, ceil_div(rows, most)), kStripRows) * kStripRows;
}

LevelRows Linear::quantise(RowsIn x, Levels& levels, Threads& threads) const {
  // A cache line more than the pairs need: rows a multiple of 4096 bytes apart would share sets.
  const long stride = (2L * pairs() + 31) / 32 * 32 + 32;
  levels.levels.grow(static_cast<std::size_t>(x.count * stride));
  levels.scales.grow(static_cast<std::size_t>(x.count));
  const auto& kernels = linear_kernels();
  for_rows(threads, x.count, [&](int row) {
    kernels.quantise(x.values + row * x.stride, shape_.inputs, limit_,
                     levels.levels.get() + row * stride, levels.scales.get() + row);
  });
  return {levels.levels.get(), stride, levels.scales.get()};
}

void Linear::multiply(const Block& block, int panel, float* tile) const {
  const auto& kernels = linear_kernels();
  if (shape_.precision == Precision::int8) {
    const long size = 2L * pairs() * kPanel;
    kernels.multiply_int8(block.levels, block.rows, int8s_ + panel * size,
                          scales_ + static_cast<long>(panel) * kPanel, pairs(), tile);
  } else {
    const long size = static_cast<long>(shape_.inputs) * kPanel;
    kernels.multiply_float(block.floats, block.rows, floats_ + panel * size, shape_.inputs,
                           tile);
  }
}

// Tasks are (block of rows, run of panels), the runs of one block next to each other, so that
// threads read the same weights at about the same time.
void Linear::apply(RowsIn x, Into into, RowsOut out, Levels& levels, Threads& threads) const {
  if (x.count == 0) return;
  const LevelRows quantised =
      shape_.precision == Precision::int8 ? quantise(x, levels, threads) : LevelRows{};
  const auto& kernels = linear_kernels();
  const auto store = shape_.kind == Kind::gated ? kernels.store_gated
                     : into == Into::sum        ? kernels.store_sum
                                                : kernels.store;
  const int size = block_rows(x.count);
  const int num_blocks = ceil_div(x.count, size);
  const int wanted = threads.count() == 1 ? 1 : threads.count() * kTasksPerThread;
  const int runs = std::clamp(wanted, 1, panels());
  threads.run(num_blocks * runs, [&](int task, int) {
    const int first = task / runs * size;
    const Block block{
        first,
        std::min(size, x.count - first),
        {x.values + first * x.stride, x.stride},
        {quantised.levels + first * quantised.stride, quantised.stride, quantised.scales + first}};
    const long run = task % runs;
    const int end = static_cast<int>((run + 1) * panels() / runs);
    for (int panel = static_cast<int>(run * panels() / runs); panel < end; ++panel) {
      alignas(64) float tile[kBlockRows * kPanel];
      multiply(block, panel, tile);
      const int column = panel * panel_columns();
      const float* bias = bias_ == nullptr ? nullptr : bias_ + panel * kPanel;
      store(tile, block.rows, std::min(panel_columns(), columns() - column), bias,
            out.values + block.first * out.stride + column, out.stride);
    }
  });
}

}  // namespace thoth

// How weights come into their panels.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "linear.h"

namespace thoth {
namespace {

constexpr int kMostInt8 = 127;
constexpr int kMostInt16 = 32767;

// The scale that makes the largest weight 127; 1 for a row of zeros.
float scale_of(const float* weights, int count) {
  float largest = 0.0f;
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::fabs(weights[i]));
  return largest > 0.0f ? largest / kMostInt8 : 1.0f;
}

std::int8_t level_of(float weight, float scale) {
  const float level = std::nearbyint(weight / scale);
  return static_cast<std::int8_t>(std::clamp(level, -127.0f, 127.0f));
}

}  // namespace

Linear::Linear(const float* weights, const float* bias, Shape shape, Arena& arena,
               Threads& threads)
    : shape_(shape) {
  if (bias != nullptr) pack_bias(bias, arena);
  if (shape_.precision == Precision::int8) {
    pack_int8s(weights, arena, threads);
  } else {
    pack_floats(weights, arena, threads);
  }
}

// Which row of the weights a lane of a panel holds, or -1 where the last panel is not full.
int Linear::output_of(int panel, int lane) const {
  const int column = panel * panel_columns() + lane % panel_columns();
  if (column >= columns()) return -1;
  return lane < panel_columns() ? column : columns() + column;
}

void Linear::pack_floats(const float* weights, Arena& arena, Threads& threads) {
  const long inputs = shape_.inputs;
  floats_ = arena.take<float>(static_cast<std::size_t>(panels() * inputs * kPanel));
  threads.run(panels(), [&](int panel, int) {
    float* packed = floats_ + panel * inputs * kPanel;
    for (int lane = 0; lane < kPanel; ++lane) {
      const int output = output_of(panel, lane);
      for (long i = 0; i < inputs; ++i) {
        packed[i * kPanel + lane] = output < 0 ? 0.0f : weights[output * inputs + i];
      }
    }
  });
}

void Linear::pack_int8s(const float* weights, Arena& arena, Threads& threads) {
  const auto count = static_cast<std::size_t>(panels()) * kPanel;
  int8s_ = arena.take<std::int8_t>(count * static_cast<std::size_t>(2 * pairs()));
  scales_ = arena.take<float>(count);
  std::atomic<long> heaviest{1};
  threads.run(panels(), [&](int panel, int) {
    long most = 1;
    for (int lane = 0; lane < kPanel; ++lane) {
      most = std::max(most, pack_int8_row(weights, panel, lane));
    }
    long seen = heaviest.load();
    while (seen < most && !heaviest.compare_exchange_weak(seen, most)) {
    }
  });
  // |sum of level * weight| <= limit * sum of |weight|.
  const long fitting = std::numeric_limits<std::int32_t>::max() / heaviest.load();
  limit_ = static_cast<int>(std::min<long>(fitting, kMostInt16));
}

// Returns the sum of the magnitudes.
long Linear::pack_int8_row(const float* weights, int panel, int lane) {
  const int output = output_of(panel, lane);
  const float* row = output < 0 ? nullptr : weights + static_cast<long>(output) * shape_.inputs;
  const float scale = row == nullptr ? 0.0f : scale_of(row, shape_.inputs);
  scales_[panel * kPanel + lane] = scale;
  std::int8_t* packed = int8s_ + 2L * panel * pairs() * kPanel + 2 * lane;
  long sum = 0;
  for (int i = 0; i < 2 * pairs(); ++i) {
    const bool padding = row == nullptr || i >= shape_.inputs;
    const std::int8_t level = padding ? std::int8_t{0} : level_of(row[i], scale);
    packed[(i / 2) * 2L * kPanel + i % 2] = level;
    sum += std::abs(level);
  }
  return sum;
}

void Linear::pack_bias(const float* bias, Arena& arena) {
  bias_ = arena.take<float>(static_cast<std::size_t>(panels()) * kPanel);
  for (int panel = 0; panel < panels(); ++panel) {
    for (int lane = 0; lane < kPanel; ++lane) {
      const int output = output_of(panel, lane);
      bias_[panel * kPanel + lane] = output < 0 ? 0.0f : bias[output];
    }
  }
}

void Linear::read(int output, float* weights) const {
  const int panel = output / kPanel;
  const int lane = output % kPanel;
  if (shape_.precision == Precision::float32) {
    const float* packed = floats_ + static_cast<long>(panel) * shape_.inputs * kPanel + lane;
    for (int i = 0; i < shape_.inputs; ++i) weights[i] = packed[static_cast<long>(i) * kPanel];
    return;
  }
  const std::int8_t* packed = int8s_ + 2L * panel * pairs() * kPanel + 2 * lane;
  const float scale = scales_[output];
  for (int i = 0; i < shape_.inputs; ++i) {
    weights[i] = static_cast<float>(packed[(i / 2) * 2L * kPanel + i % 2]) * scale;
  }
}

}  // namespace thoth

#include "linear.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "isa.h"

using namespace thoth;

namespace {

using Values = std::vector<float>;

std::size_t at(int row, int width, int column) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
         static_cast<std::size_t>(column);
}

// Numbers in (-1, 1) that repeat with their seed.
Values numbers(std::size_t count, std::uint32_t seed) {
  Values values(count);
  std::uint32_t state = seed * 2654435761u + 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
  }
  return values;
}

bool same_bits(const float* a, const float* b, int count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

// Runs body on every instruction set there is.
template <typename Body>
void on_every_isa(Body body) {
  body();
  prefer_baseline(true);
  body();
  prefer_baseline(false);
}

Values applied(const Linear& linear, const Values& x, int rows, Threads& threads) {
  Values out(at(rows, linear.columns(), 0), -7.0f);
  Levels levels;
  linear.apply({x.data(), linear.inputs(), rows}, Into::fresh, {out.data(), linear.columns()},
               levels, threads);
  return out;
}

// x * weights + bias in float64, and how large the sum's terms are together.
struct Exact {
  double sum;
  double magnitude;
};

Exact exact(const Values& x, const Values& weights, int row, int output, int inputs) {
  Exact found{0, 0};
  for (int i = 0; i < inputs; ++i) {
    const double term = static_cast<double>(x[at(row, inputs, i)]) * weights[at(output, inputs, i)];
    found.sum += term;
    found.magnitude += std::fabs(term);
  }
  return found;
}

struct Size {
  int outputs, inputs;
};

constexpr Size kSizes[] = {{1, 1},   {16, 64},   {17, 63},  {15, 129}, {48, 577},
                           {33, 96}, {160, 768}, {5, 1537}, {64, 2}};

// Of the weights' own rounding to int8, each input's share is at most half a step.
double int8_error(const Values& x, const Values& weights, int row, int output, int inputs) {
  double largest = 0;
  double sum = 0;
  for (int i = 0; i < inputs; ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(weights[at(output, inputs, i)])));
    sum += std::fabs(x[at(row, inputs, i)]);
  }
  return 0.51 * largest / 127 * sum;
}

}  // namespace

CASE(float32_is_near_the_exact_product) {
  Threads threads(1);
  Arena arena;
  on_every_isa([&] {
    for (const Size size : kSizes) {
      const Values weights = numbers(at(size.outputs, size.inputs, 0), 1);
      const Values bias = numbers(static_cast<std::size_t>(size.outputs), 2);
      const Linear linear(weights.data(), bias.data(), {size.outputs, size.inputs}, arena, threads);
      for (const int rows : {1, 2, 3, 5, 6, 7, 13, 97}) {
        const Values x = numbers(at(rows, size.inputs, 0), 3);
        const Values out = applied(linear, x, rows, threads);
        for (int row = 0; row < rows; ++row) {
          for (int o = 0; o < size.outputs; ++o) {
            const Exact truth = exact(x, weights, row, o, size.inputs);
            const double error = std::fabs(out[at(row, size.outputs, o)] - truth.sum -
                                           bias[static_cast<std::size_t>(o)]);
            CHECK(error <= 1e-5 * (truth.magnitude + 1));
          }
        }
      }
    }
  });
}

CASE(int8_is_off_by_no_more_than_its_weights_rounding) {
  Threads threads(1);
  Arena arena;
  on_every_isa([&] {
    for (const Size size : kSizes) {
      const Values weights = numbers(at(size.outputs, size.inputs, 0), 4);
      const Linear linear(weights.data(), nullptr, {size.outputs, size.inputs, Precision::int8},
                          arena, threads);
      for (const int rows : {1, 4, 7, 97}) {
        const Values x = numbers(at(rows, size.inputs, 0), 5);
        const Values out = applied(linear, x, rows, threads);
        for (int row = 0; row < rows; ++row) {
          for (int o = 0; o < size.outputs; ++o) {
            const double truth = exact(x, weights, row, o, size.inputs).sum;
            CHECK(std::fabs(out[at(row, size.outputs, o)] - truth) <=
                  int8_error(x, weights, row, o, size.inputs) + 1e-3);
          }
        }
      }
    }
  });
}

CASE(a_row_has_the_same_bits_alone_and_in_any_company_on_any_threads) {
  on_every_isa([&] {
    for (const Precision precision : {Precision::float32, Precision::int8}) {
      for (const Size size : kSizes) {
        constexpr int kRows = 211;
        Threads one(1);
        Arena arena;
        const Values weights = numbers(at(size.outputs, size.inputs, 0), 6);
        const Linear linear(weights.data(), nullptr, {size.outputs, size.inputs, precision}, arena,
                            one);
        const Values x = numbers(at(kRows, size.inputs, 0), 7);
        const Values together = applied(linear, x, kRows, one);
        for (const int count : {1, 2, 3}) {
          Threads threads(count);
          for (const int rows : {1, 2, 3, 4, 5, 6, 7, 8, 11, 23, 96, 97}) {
            for (const int first : {0, 41, kRows - rows}) {
              const auto start = x.begin() + static_cast<long>(at(first, size.inputs, 0));
              const Values some(start, start + static_cast<long>(at(rows, size.inputs, 0)));
              const Values apart = applied(linear, some, rows, threads);
              CHECK(same_bits(apart.data(), &together[at(first, size.outputs, 0)],
                              rows * size.outputs));
            }
          }
        }
      }
    }
  });
}

CASE(strange_rows_disturb_no_neighbour) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr int kInputs = 67, kOutputs = 21, kRows = 12;
  Threads threads(1);
  Arena arena;
  on_every_isa([&] {
    for (const Precision precision : {Precision::float32, Precision::int8}) {
      const Values weights = numbers(at(kOutputs, kInputs, 0), 8);
      const Linear linear(weights.data(), nullptr, {kOutputs, kInputs, precision}, arena, threads);
      const Values calm = numbers(at(kRows, kInputs, 0), 9);
      const Values expected = applied(linear, calm, kRows, threads);
      for (const float strange : {kNaN, kInfinity, -kInfinity, 3e38f, 1e-42f, 0.0f}) {
        Values x = calm;
        for (int i = 0; i < kInputs; ++i) x[at(4, kInputs, i)] = 0.0f;
        x[at(4, kInputs, 66)] = strange;
        const Values out = applied(linear, x, kRows, threads);
        CHECK(same_bits(out.data(), expected.data(), 4 * kOutputs));
        CHECK(same_bits(&out[at(5, kOutputs, 0)], &expected[at(5, kOutputs, 0)], 7 * kOutputs));
        for (int o = 0; o < kOutputs; ++o) {
          const float value = out[at(4, kOutputs, o)];
          const float product = strange * weights[at(o, kInputs, 66)];
          if (std::isnan(strange)) CHECK(std::isnan(value));
          if (std::isinf(strange)) CHECK(!std::isfinite(value));
          if (std::fabs(strange) < 1.0f) CHECK(std::fabs(value) < 1e-30f);
          if (strange == 3e38f) CHECK(std::fabs(value - product) <= 3e38f * 0.01f);
        }
      }
    }
  });
}

CASE(the_widest_levels_do_not_overflow) {
  Threads threads(1);
  Arena arena;
  constexpr int kInputs = 30000;
  const Values weights(kInputs, 1.0f);
  const Values x(kInputs, -2.0f);
  const Linear linear(weights.data(), nullptr, {1, kInputs, Precision::int8}, arena, threads);
  CHECK(linear.limit() == 563);
  on_every_isa([&] {
    CHECK(std::fabs(applied(linear, x, 1, threads)[0] + 2.0 * kInputs) < 0.1);
  });
  const Linear narrow(weights.data(), nullptr, {100, 300, Precision::int8}, arena, threads);
  CHECK(narrow.limit() == 32767);
}

CASE(a_sum_is_added_to_what_is_there) {
  Threads threads(2);
  Arena arena;
  constexpr int kInputs = 40, kOutputs = 37, kRows = 9;
  const Values weights = numbers(at(kOutputs, kInputs, 0), 10);
  const Values x = numbers(at(kRows, kInputs, 0), 11);
  on_every_isa([&] {
    for (const Precision precision : {Precision::float32, Precision::int8}) {
      const Linear linear(weights.data(), nullptr, {kOutputs, kInputs, precision}, arena, threads);
      const Values fresh = applied(linear, x, kRows, threads);
      Values out = numbers(at(kRows, kOutputs, 0), 12);
      const Values before = out;
      Levels levels;
      linear.apply({x.data(), kInputs, kRows}, Into::sum, {out.data(), kOutputs}, levels, threads);
      for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == before[i] + fresh[i]);
    }
  });
}

CASE(a_gated_layer_is_silu_of_the_gate_times_the_other_half) {
  Threads threads(1);
  Arena arena;
  on_every_isa([&] {
    for (const int inner : {1, 8, 13, 64}) {
      constexpr int kInputs = 30, kRows = 7;
      const Values weights = numbers(at(2 * inner, kInputs, 0), 13);
      Values x = numbers(at(kRows, kInputs, 0), 14);
      // Gates from far below zero to far above it.
      for (int row = 0; row < kRows; ++row) {
        for (int i = 0; i < kInputs; ++i) x[at(row, kInputs, i)] *= std::ldexp(1.0f, 2 * row - 6);
      }
      const Linear plain(weights.data(), nullptr, {2 * inner, kInputs}, arena, threads);
      const Linear gated(weights.data(), nullptr,
                         {2 * inner, kInputs, Precision::float32, Kind::gated}, arena, threads);
      const Values both = applied(plain, x, kRows, threads);
      const Values out = applied(gated, x, kRows, threads);
      for (int row = 0; row < kRows; ++row) {
        for (int o = 0; o < inner; ++o) {
          const double gate = both[at(row, 2 * inner, o)];
          const double truth = gate / (1 + std::exp(-gate)) * both[at(row, 2 * inner, inner + o)];
          CHECK(std::fabs(out[at(row, inner, o)] - truth) <= 4e-7 * std::fabs(truth) + 1e-30);
        }
      }
    }
  });
}

CASE(weights_can_be_read_back) {
  Threads threads(1);
  Arena arena;
  constexpr int kInputs = 45, kOutputs = 50;
  const Values weights = numbers(at(kOutputs, kInputs, 0), 15);
  const Linear wide(weights.data(), nullptr, {kOutputs, kInputs}, arena, threads);
  const Linear narrow(weights.data(), nullptr, {kOutputs, kInputs, Precision::int8}, arena,
                      threads);
  Values row(kInputs);
  for (int o = 0; o < kOutputs; ++o) {
    wide.read(o, row.data());
    CHECK(same_bits(row.data(), &weights[at(o, kInputs, 0)], kInputs));
    narrow.read(o, row.data());
    for (int i = 0; i < kInputs; ++i) {
      CHECK(std::fabs(row[static_cast<std::size_t>(i)] - weights[at(o, kInputs, i)]) <= 0.51 / 127);
    }
  }
}

CASE(no_rows_are_no_work) {
  Threads threads(2);
  Arena arena;
  const Values weights = numbers(64, 16);
  for (const Precision precision : {Precision::float32, Precision::int8}) {
    const Linear linear(weights.data(), nullptr, {8, 8, precision}, arena, threads);
    CHECK(applied(linear, {}, 0, threads).empty());
  }
}

#include "attention.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "isa.h"

using namespace thoth;

namespace {

constexpr int kBlock = 16;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A step of random runs over random blocks, the first segment of each run shared by all.
struct Step {
  int heads, kv_heads, head_dim;
  std::vector<std::int32_t> run_rows, run_offsets{0}, run_segments;
  std::vector<std::int32_t> tokens, segment_offsets{0}, block_ids;
  std::vector<float> k, v, q, o, lse;
  int num_rows = 0, num_blocks = 0;
  std::mt19937 random;

  Step(int h, int kv, int dim, int num_runs, unsigned seed)
      : heads(h), kv_heads(kv), head_dim(dim), random(seed) {
    add_segment(1 + static_cast<int>(random() % 700));
    for (int run = 0; run < num_runs; ++run) {
      const int own = 1 + static_cast<int>(random() % 90);
      const int rows = 1 + static_cast<int>(random() % static_cast<unsigned>(own));
      run_rows.insert(run_rows.end(), {num_rows, rows});
      num_rows += rows;
      run_segments.insert(run_segments.end(), {0, static_cast<std::int32_t>(tokens.size())});
      run_offsets.push_back(static_cast<std::int32_t>(run_segments.size()));
      add_segment(own);
    }
    const auto block = static_cast<std::size_t>(kBlock * kv_heads * head_dim);
    k.assign(block * static_cast<std::size_t>(num_blocks), kNan);
    v = k;
    fill();
    q = numbers(static_cast<std::size_t>(num_rows * heads * head_dim));
  }

  void add_segment(int count) {
    tokens.push_back(count);
    for (int i = 0; i < (count + kBlock - 1) / kBlock; ++i) block_ids.push_back(num_blocks++);
    segment_offsets.push_back(static_cast<std::int32_t>(block_ids.size()));
  }

  std::vector<float> numbers(std::size_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> out(count);
    for (float& x : out) x = normal(random);
    return out;
  }

  // By `append`, so that slots past a segment's end stay NaN.
  void fill() {
    std::vector<std::int64_t> slots;
    for (std::size_t s = 0; s < tokens.size(); ++s) {
      for (int t = 0; t < tokens[s]; ++t) {
        const auto block = static_cast<std::size_t>(segment_offsets[s] + t / kBlock);
        slots.push_back(std::int64_t{block_ids[block]} * kBlock + t % kBlock);
      }
    }
    const auto width = static_cast<std::size_t>(kv_heads * head_dim);
    const auto keys = numbers(slots.size() * width), values = numbers(slots.size() * width);
    Threads threads(2);
    append(cache(), slots, keys.data(), values.data(), threads);
  }

  KvCache cache() {
    const std::ptrdiff_t stride = std::ptrdiff_t{4} * kBlock * kv_heads * head_dim;
    return {reinterpret_cast<char*>(k.data()), reinterpret_cast<char*>(v.data()), stride, stride,
            num_blocks, kv_heads, head_dim, KvType::float32};
  }

  PlanArrays arrays() const {
    return {run_rows, run_offsets, run_segments, tokens, segment_offsets, block_ids};
  }

  void attend(int num_threads) {
    o.assign(q.size(), kNan);
    lse.assign(static_cast<std::size_t>(num_rows * heads), kNan);
    Threads threads(num_threads);
    AttentionPlan plan(arrays());
    for (int layer = 0; layer < 2; ++layer) {
      plan.attend({q.data(), o.data(), lse.data(), num_rows, heads}, cache(), threads);
    }
  }

  // The truth about one row and head, in double.
  std::vector<double> truth(int run, int row, int head) const {
    const int kv = head / (heads / kv_heads);
    const int rows = run_rows[static_cast<std::size_t>(2 * run + 1)];
    const int first = run_rows[static_cast<std::size_t>(2 * run)];
    const float* query = &q[static_cast<std::size_t>(((first + row) * heads + head) * head_dim)];
    std::vector<double> sum(static_cast<std::size_t>(head_dim) + 1, 0.0);
    for (int s : {0, run + 1}) {
      const int all = tokens[static_cast<std::size_t>(s)];
      const int seen = s == 0 ? all : all - rows + row + 1;
      for (int t = 0; t < seen; ++t) {
        const auto at = static_cast<std::size_t>(segment_offsets[static_cast<std::size_t>(s)] + t / kBlock);
        const long base = (long{block_ids[at]} * kv_heads + kv) * kBlock * head_dim;
        double score = 0.0;
        for (int d = 0; d < head_dim; ++d) {
          score += double{query[d]} * double{k[static_cast<std::size_t>(base + d * kBlock + t % kBlock)]};
        }
        const double weight = std::exp(score / std::sqrt(head_dim));
        sum.back() += weight;
        for (int d = 0; d < head_dim; ++d) {
          const auto value = static_cast<std::size_t>(base + t % kBlock * head_dim + d);
          sum[static_cast<std::size_t>(d)] += weight * double{v[value]};
        }
      }
    }
    for (int d = 0; d < head_dim; ++d) sum[static_cast<std::size_t>(d)] /= sum.back();
    sum.back() = std::log(sum.back());
    return sum;
  }

  void check() const {
    for (std::size_t run = 0; 2 * run < run_rows.size(); ++run) {
      const int first = run_rows[2 * run];
      for (int row = 0; row < run_rows[2 * run + 1]; ++row) {
        for (int head = 0; head < heads; ++head) {
          const auto expected = truth(static_cast<int>(run), row, head);
          const auto at = static_cast<std::size_t>((first + row) * heads + head);
          CHECK(std::abs(lse[at] - expected.back()) < 1e-5);
          for (int d = 0; d < head_dim; ++d) {
            const auto i = at * static_cast<std::size_t>(head_dim) + static_cast<std::size_t>(d);
            CHECK(std::abs(o[i] - expected[static_cast<std::size_t>(d)]) < 1e-5);
          }
        }
      }
    }
  }
};

}  // namespace

CASE(attention_equals_a_sum_in_double) {
  for (bool baseline : {true, false}) {
    prefer_baseline(baseline);
    for (unsigned seed = 0; seed < 4; ++seed) {
      for (auto [heads, kv_heads, head_dim] :
           {std::array{3, 1, 64}, std::array{4, 4, 80}, std::array{4, 2, 18}}) {
        Step step(heads, kv_heads, head_dim, 1 + static_cast<int>(seed), seed);
        step.attend(2);
        step.check();
      }
    }
  }
  prefer_baseline(false);
}

CASE(the_number_of_threads_changes_no_bit) {
  Step step(9, 3, 64, 5, 7);
  step.attend(1);
  const auto o = step.o, lse = step.lse;
  for (int threads : {2, 3, 8}) {
    step.attend(threads);
    CHECK(step.o == o && step.lse == lse);
  }
}

CASE(a_plan_that_cannot_be_is_refused) {
  const auto refused = [](auto damage) {
    Step step(2, 1, 16, 2, 1);
    damage(step);
    try {
      step.attend(1);
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  CHECK(refused([](Step& s) { s.block_ids[0] = s.num_blocks; }));
  CHECK(refused([](Step& s) { s.block_ids[0] = -1; }));
  CHECK(refused([](Step& s) { s.run_segments[1] = 99; }));
  CHECK(refused([](Step& s) { s.run_offsets[1] = -1; }));
  CHECK(refused([](Step& s) { s.segment_offsets[1] = 1 << 20; }));
  CHECK(refused([](Step& s) { s.run_rows[1] = 1 << 20; }));
  CHECK(refused([](Step& s) { s.tokens[0] = 1 << 20; }));
  CHECK(!refused([](Step&) {}));
}

#include "attention.h"

#include <chrono>
#include <vector>

#include "attention_arrays.h"
#include "attention_fold.h"
#include "bindings.h"
#include "probe_kernel.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace thoth::bindings {
namespace {

void make_plan(AttentionPlan* place, const Array& run_rows, const Array& run_offsets,
               const Array& run_segments, const Array& segment_tokens,
               const Array& segment_offsets, const Array& block_ids) {
  new (place) AttentionPlan(plan_arrays(run_rows, run_offsets, run_segments, segment_tokens,
                                        segment_offsets, block_ids));
}

void attend(AttentionPlan& plan, const Array& q, const Array& k_cache, const Array& v_cache,
            const Array& o, const Array& lse, Threads& threads) {
  const KvCache cache = kv_cache(k_cache, v_cache);
  const long num_rows = size_of(q, 0), heads = size_of(q, 1);
  const AttentionRows rows{elements<float>(q, "q", {-1, -1, cache.head_dim}),
                           elements<float>(o, "o", {num_rows, heads, cache.head_dim}),
                           elements<float>(lse, "lse", {num_rows, heads}),
                           static_cast<int>(num_rows), static_cast<int>(heads)};
  const nb::gil_scoped_release unlocked;
  plan.attend(rows, cache, threads);
}

void append_rows(const Array& k_cache, const Array& v_cache, const Array& slots, const Array& k,
                 const Array& v, Threads& threads) {
  const KvCache cache = kv_cache(k_cache, v_cache);
  const std::int64_t* places = elements<std::int64_t>(slots, "slots", {-1});
  const long num_rows = size_of(slots, 0);
  const float* keys = elements<float>(k, "k", {num_rows, cache.kv_heads, cache.head_dim});
  const float* values = elements<float>(v, "v", {num_rows, cache.kv_heads, cache.head_dim});
  const nb::gil_scoped_release unlocked;
  append(cache, {places, static_cast<std::size_t>(num_rows)}, keys, values, threads);
}

void fold_rows(const Array& rows, const Array& offsets, const Array& parts, const Array& part_o,
               const Array& part_lse, const Array& o, const Array& lse, Threads& threads) {
  const long num_parts = size_of(part_o, 0), num_rows = size_of(o, 0);
  const long heads = size_of(o, 1), head_dim = size_of(o, 2);
  const FoldArrays fold{numbers(rows, "rows"), numbers(offsets, "offsets"),
                        numbers(parts, "parts")};
  const States<const float> from{elements<float>(part_o, "part_o", {-1, heads, head_dim}),
                                 elements<float>(part_lse, "part_lse", {num_parts, heads}),
                                 num_parts};
  const States<float> into{elements<float>(o, "o", {-1, -1, -1}),
                           elements<float>(lse, "lse", {num_rows, heads}), num_rows};
  const nb::gil_scoped_release unlocked;
  fold_parts(fold, from, into, static_cast<int>(heads), static_cast<int>(head_dim), threads);
}

double seconds_of(Threads& threads, auto&& body) {
  const auto begin = std::chrono::steady_clock::now();
  threads.run(threads.count(), [&](int task, int) { body(task); });
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Bytes a second of one pass over all of `data`, a part for each thread.
double probe_read(const Array& data, Threads& threads) {
  const float* all = elements<float>(data, "data", {-1});
  const std::size_t part = data.shape(0) * sizeof(float) / static_cast<std::size_t>(threads.count());
  std::vector<float> sums(static_cast<std::size_t>(threads.count()));
  const nb::gil_scoped_release unlocked;
  const auto& kernel = probe_kernels();
  const double seconds = seconds_of(threads, [&](int task) {
    const auto i = static_cast<std::size_t>(task);
    sums[i] = kernel.read_all(reinterpret_cast<const char*>(all) + i * part / 64 * 64, part);
  });
  return static_cast<double>(part) * threads.count() / seconds;
}

// Floating-point operations a second of independent multiply-adds on all threads.
double probe_multiply_add(long rounds, Threads& threads) {
  std::vector<float> sums(static_cast<std::size_t>(threads.count()));
  const nb::gil_scoped_release unlocked;
  const auto& kernel = probe_kernels();
  const double seconds = seconds_of(threads, [&](int task) {
    sums[static_cast<std::size_t>(task)] = kernel.multiply_add_all(rounds);
  });
  return 2.0 * kProbeSteps * kernel.lanes * static_cast<double>(rounds) * threads.count() / seconds;
}

}  // namespace

void bind_attention(nb::module_& module) {
  nb::class_<AttentionPlan>(module, "AttentionPlan",
                            "What a step's rows attend, for all of its layers and one caller.")
      .def("__init__", &make_plan, "run_rows"_a, "run_offsets"_a, "run_segments"_a,
           "segment_tokens"_a, "segment_offsets"_a, "block_ids"_a)
      .def("attend", &attend, "q"_a, "k_cache"_a, "v_cache"_a, "o"_a, "lse"_a, "threads"_a,
           "Writes the rows' states to o [rows, heads, head_dim] and lse [rows, heads].");
  module.def("append", &append_rows, "k_cache"_a, "v_cache"_a, "slots"_a, "k"_a, "v"_a, "threads"_a,
             "Writes k and v [rows, kv_heads, head_dim] into slots [rows] of the blocks.");
  module.def("fold_parts", &fold_rows, "rows"_a, "offsets"_a, "parts"_a, "part_o"_a, "part_lse"_a,
             "o"_a, "lse"_a, "threads"_a,
             "Folds the states of parts to those of rows, which it writes to o and lse.");
  module.def("probe_read", &probe_read, "data"_a, "threads"_a,
             "Bytes a second of one pass over a float32 array.");
  module.def("probe_multiply_add", &probe_multiply_add, "rounds"_a, "threads"_a,
             "Floating-point operations a second without memory.");
}

}  // namespace thoth::bindings

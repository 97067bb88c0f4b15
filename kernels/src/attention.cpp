#include "attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "attention_append_kernel.h"

namespace thoth {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

// Rows that a task of merging or appending takes.
constexpr int kRowsPerTask = 16;

int bytes_of(KvType type) { return type == KvType::float32 ? 4 : 2; }

int num_tasks(std::size_t count) {
  return static_cast<int>((count + kRowsPerTask - 1) / kRowsPerTask);
}

// Calls body(i) for the indices of a task.
template <typename Body>
void each_of(int task, std::size_t count, Body&& body) {
  const std::size_t begin = static_cast<std::size_t>(task) * kRowsPerTask;
  const std::size_t end = std::min(count, begin + kRowsPerTask);
  for (std::size_t i = begin; i < end; ++i) body(i);
}

std::size_t head_index(std::int32_t row, int heads, std::int64_t head) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(heads) +
         static_cast<std::size_t>(head);
}

void make_unit(const AttentionRows& rows, const KvCache& cache, std::int32_t row) {
  const auto heads = static_cast<std::size_t>(rows.heads);
  const auto head_dim = static_cast<std::size_t>(cache.head_dim);
  std::fill_n(rows.o + static_cast<std::size_t>(row) * heads * head_dim, heads * head_dim, 0.0f);
  std::fill_n(rows.lse + static_cast<std::size_t>(row) * heads, heads,
              -std::numeric_limits<float>::infinity());
}

}  // namespace

// Where the states of a unit's rows go, and what the rows are.
struct AttentionPlan::Places {
  const float* q[kMaxUnitRows];
  float* o[kMaxUnitRows];
  float* lse[kMaxUnitRows];
  std::int32_t limits[kMaxUnitRows];
};

AttentionPlan::AttentionPlan(const PlanArrays& arrays) : plan_(arrays) {}

void AttentionPlan::attend(const AttentionRows& rows, const KvCache& cache, Threads& threads) {
  if (plan_.end_row() > rows.num_rows) {
    refuse("q has " + std::to_string(rows.num_rows) + " rows, the plan has row " +
           std::to_string(plan_.end_row() - 1));
  }
  if (plan_.last_block() >= cache.num_blocks) {
    refuse("k_cache has " + std::to_string(cache.num_blocks) + " blocks, the plan has block " +
           std::to_string(plan_.last_block()));
  }
  if (cache.kv_heads < 1 || rows.heads % cache.kv_heads != 0) {
    refuse("q has " + std::to_string(rows.heads) + " heads, which " +
           std::to_string(cache.kv_heads) + " kv heads do not divide");
  }
  const ScheduleKey key{rows.heads, cache.kv_heads, cache.head_dim, bytes_of(cache.type),
                        threads.count()};
  if (key != key_) prepare(key);
  for (std::int32_t row = 0; row < rows.num_rows; ++row) {
    if (row >= plan_.end_row() || !plan_.has_row()[static_cast<std::size_t>(row)]) {
      make_unit(rows, cache, row);
    }
  }
  for (const Wave& wave : schedule_.waves) {
    run_units(wave, rows, cache, threads);
    fold_tiles(wave, rows, threads);
    merge_segments(wave, rows, threads);
  }
}

void AttentionPlan::prepare(const ScheduleKey& key) {
  schedule_ = make_schedule(plan_, key);
  key_ = key;
  std::size_t num_parts = 0, tile_floats = 0;
  for (const Wave& wave : schedule_.waves) {
    num_parts = std::max(num_parts, static_cast<std::size_t>(wave.num_parts));
    tile_floats = std::max(tile_floats, wave.tile_floats);
  }
  part_lse_.resize(num_parts * static_cast<std::size_t>(key.heads));
  parts_.resize(part_lse_.size() * static_cast<std::size_t>(key.head_dim));
  tiles_.resize(tile_floats);
  scratch_.resize(static_cast<std::size_t>(key.num_threads));
}

void AttentionPlan::find_places(const Wave& wave, const UnitRows& unit, const AttentionRows& rows,
                                Places& places) {
  const auto head_dim = static_cast<std::size_t>(key_.head_dim);
  const std::int64_t group = key_.group();
  for (std::int32_t i = 0; i < unit.num_states(); ++i) {
    const std::int64_t flat = unit.first + i % unit.num_rows;
    const SegmentRow& row = wave.rows_of(unit.segment)[flat / group];
    const std::int64_t head = (unit.kv_head + i / unit.num_rows) * group + flat % group;
    const std::size_t source = head_index(row.row, key_.heads, head);
    places.q[i] = rows.q + source * head_dim;
    places.limits[i] = row.limit;  // the first kv head's serve for all
    if (row.part == SegmentRow::kOutput) {
      places.o[i] = rows.o + source * head_dim;
      places.lse[i] = rows.lse + source;
    } else {
      const std::size_t part = head_index(row.part, key_.heads, head);
      places.o[i] = parts_.data() + part * head_dim;
      places.lse[i] = part_lse_.data() + part;
    }
  }
}

void AttentionPlan::run_units(const Wave& wave, const AttentionRows& rows, const KvCache& cache,
                              Threads& threads) {
  const AttentionKernels& kernels = attention_kernels();
  const std::size_t scratch_floats = kernels.scratch_floats(kMaxUnitRows, cache.head_dim);
  for (std::vector<float>& scratch : scratch_) {
    if (scratch.size() < scratch_floats) scratch.resize(scratch_floats);
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(cache.head_dim));
  const std::ptrdiff_t head_bytes =
      std::ptrdiff_t{bytes_of(cache.type)} * cache.head_dim * kBlockTokens;
  threads.run(static_cast<int>(wave.units.size()), [&](int task, int thread) {
    const Unit& unit = wave.units[static_cast<std::size_t>(task)];
    Places places;
    find_places(wave, unit.rows, rows, places);
    const std::ptrdiff_t head = unit.rows.kv_head * head_bytes;
    const AttentionUnit call{
        .k = cache.k + head,
        .v = cache.v + head,
        .k_stride = cache.k_stride,
        .v_stride = cache.v_stride,
        .type = cache.type,
        .head_dim = cache.head_dim,
        .num_heads = unit.rows.num_heads,
        .blocks = plan_.blocks(unit.rows.segment),
        .tile_begin = unit.tile_begin,
        .tile_end = unit.tile_end,
        .num_rows = unit.rows.num_rows,
        .scale = scale,
        .limits = places.limits,
        .q = places.q,
        .o = places.o,
        .lse = places.lse,
        .tile_states = unit.is_split ? tiles_.data() + unit.states : nullptr};
    kernels.attend(call, scratch_[static_cast<std::size_t>(thread)].data());
  });
}

void AttentionPlan::fold_tiles(const Wave& wave, const AttentionRows& rows, Threads& threads) {
  const AttentionKernels& kernels = attention_kernels();
  const auto stride = static_cast<std::size_t>(state_floats(key_.head_dim));
  threads.run(static_cast<int>(wave.splits.size()), [&](int task, int) {
    const Split& split = wave.splits[static_cast<std::size_t>(task)];
    Places places;
    find_places(wave, split.rows, rows, places);
    const auto num_states = static_cast<std::size_t>(split.rows.num_states());
    for (std::size_t i = 0; i < num_states; ++i) {
      kernels.fold(tiles_.data() + split.states + i * stride, num_states * stride, split.num_tiles,
                   key_.head_dim, places.o[i], places.lse[i]);
    }
  });
}

void AttentionPlan::merge_segments(const Wave& wave, const AttentionRows& rows, Threads& threads) {
  const AttentionKernels& kernels = attention_kernels();
  const auto head_dim = static_cast<std::size_t>(key_.head_dim);
  const std::size_t count = wave.merges.size();
  threads.run(num_tasks(count), [&](int task, int) {
    each_of(task, count, [&](std::size_t i) {
      const Merge& merge = wave.merges[i];
      for (int head = 0; head < key_.heads; ++head) {
        const std::size_t into = head_index(merge.row, key_.heads, head);
        for (std::int32_t p = merge.first_part; p < merge.first_part + merge.num_parts; ++p) {
          const std::size_t part = head_index(p, key_.heads, head);
          kernels.merge(rows.o + into * head_dim, rows.lse + into, parts_.data() + part * head_dim,
                        part_lse_[part], key_.head_dim);
        }
      }
    });
  });
}

void append(const KvCache& cache, std::span<const std::int64_t> slots, const float* k,
            const float* v, Threads& threads) {
  for (const std::int64_t slot : slots) {
    if (slot < 0 || slot >= cache.num_blocks * kBlockTokens) {
      refuse("slots has " + std::to_string(slot) + ", the cache has " +
             std::to_string(cache.num_blocks * kBlockTokens));
    }
  }
  const AppendRows rows{k,          v,           slots.data(),   cache.k,       cache.v,
                        cache.k_stride, cache.v_stride, cache.type, cache.kv_heads, cache.head_dim};
  const Append kernel = append_kernel();
  threads.run(num_tasks(slots.size()), [&](int task, int) {
    const int begin = task * kRowsPerTask;
    kernel(rows, begin, std::min(begin + kRowsPerTask, static_cast<int>(slots.size())));
  });
}

}  // namespace thoth

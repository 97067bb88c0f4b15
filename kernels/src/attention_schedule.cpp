#include "attention_schedule.h"

#include <algorithm>
#include <span>

namespace thoth {
namespace {

// Bytes of parts that a wave may hold.
constexpr std::int64_t kMaxPartBytes = std::int64_t{64} << 20;
// Parts of the work for each thread: the last of them to end is waited for.
constexpr int kUnitsPerThread = 8;

// Consecutive rows of a run.
struct Piece {
  const Run* run;
  std::int32_t begin;
  std::int32_t end;
};

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::vector<std::vector<Piece>> cut_in_waves(const Plan& plan, const ScheduleKey& key) {
  const std::int64_t part_bytes = std::int64_t{4} * key.heads * (key.head_dim + 1);
  const std::int64_t max_parts = std::max<std::int64_t>(1, kMaxPartBytes / part_bytes);
  std::vector<std::vector<Piece>> waves(1);
  std::int64_t num_parts = 0;
  for (const Run& run : plan.runs()) {
    const auto parts_a_row = static_cast<std::int64_t>(run.segments.size()) - 1;
    for (std::int32_t row = 0; row < run.num_rows;) {
      const std::int64_t left = parts_a_row == 0 ? run.num_rows : (max_parts - num_parts) / parts_a_row;
      if (left <= 0 && num_parts > 0) {
        waves.emplace_back();
        num_parts = 0;
        continue;
      }
      const auto count = static_cast<std::int32_t>(
          std::min<std::int64_t>(run.num_rows - row, std::max<std::int64_t>(left, 1)));
      waves.back().push_back({&run, row, row + count});
      num_parts += count * parts_a_row;
      row += count;
    }
  }
  return waves;
}

class WaveMaker {
 public:
  WaveMaker(const Plan& plan, const ScheduleKey& key, std::span<const Piece> pieces)
      : plan_(plan), key_(key), pieces_(pieces) {}

  Wave make() {
    add_rows();
    choose_heads();
    for (int segment = 0; segment < plan_.num_segments(); ++segment) add_units(segment);
    split_units();
    std::stable_sort(wave_.units.begin(), wave_.units.end(),
                     [](const Unit& a, const Unit& b) { return a.cost > b.cost; });
    return std::move(wave_);
  }

 private:
  void add_rows() {
    const auto num_segments = static_cast<std::size_t>(plan_.num_segments());
    auto& offsets = wave_.row_offsets;
    offsets.assign(num_segments + 1, 0);
    for (const Piece& piece : pieces_) {
      for (const std::int32_t segment : piece.run->segments) {
        offsets[static_cast<std::size_t>(segment) + 1] +=
            static_cast<std::size_t>(piece.end - piece.begin);
      }
    }
    for (std::size_t s = 0; s < num_segments; ++s) offsets[s + 1] += offsets[s];
    wave_.rows.resize(offsets.back());
    next_.assign(offsets.begin(), offsets.end() - 1);
    for (const Piece& piece : pieces_) add_rows_of(piece);
    for (std::size_t s = 0; s < num_segments; ++s) {
      std::stable_sort(wave_.rows.begin() + static_cast<std::ptrdiff_t>(offsets[s]),
                       wave_.rows.begin() + static_cast<std::ptrdiff_t>(offsets[s + 1]),
                       [](const SegmentRow& a, const SegmentRow& b) { return a.limit < b.limit; });
    }
  }

  void add_rows_of(const Piece& piece) {
    const Run& run = *piece.run;
    const auto num_segments = static_cast<std::int32_t>(run.segments.size());
    for (std::int32_t i = piece.begin; i < piece.end; ++i) {
      const std::int32_t row = run.first_row + i;
      const std::int32_t first_part = wave_.num_parts;
      for (std::int32_t s = 0; s < num_segments; ++s) {
        const std::int32_t segment = run.segments[static_cast<std::size_t>(s)];
        std::int32_t limit = plan_.tokens(segment);
        if (s + 1 == num_segments) limit += i + 1 - run.num_rows;
        const std::int32_t part = s == 0 ? SegmentRow::kOutput : wave_.num_parts++;
        wave_.rows[next_[static_cast<std::size_t>(segment)]++] = {row, limit, part};
      }
      if (num_segments > 1) wave_.merges.push_back({row, first_part, num_segments - 1});
    }
  }

  std::int64_t num_rows(int segment) const {
    const auto s = static_cast<std::size_t>(segment);
    return static_cast<std::int64_t>(wave_.row_offsets[s + 1] - wave_.row_offsets[s]) *
           key_.group();
  }

  // All kv heads where ranges of tiles alone give every thread enough to do.
  void choose_heads() {
    std::int64_t num_tiles = 0;
    for (int segment = 0; segment < plan_.num_segments(); ++segment) {
      const std::int64_t num_units = ceil_div(num_rows(segment), kMaxUnitRows);
      num_tiles += num_units * ceil_div(plan_.tokens(segment), kTileTokens);
    }
    most_heads_ = key_.kv_heads;
    const std::int64_t wanted = key_.num_threads == 1 ? 1 : key_.num_threads * kUnitsPerThread;
    while (most_heads_ > 1 && num_tiles * ceil_div(key_.kv_heads, most_heads_) < wanted) {
      most_heads_ = static_cast<std::int32_t>(ceil_div(most_heads_, 2));
    }
  }

  void add_units(int segment) {
    const std::int64_t rows = num_rows(segment);
    if (rows == 0) return;
    const std::int64_t num_units = ceil_div(rows, kMaxUnitRows);
    const std::int64_t fitting = kMaxUnitRows / ceil_div(rows, num_units);
    const std::int64_t num_ranges = ceil_div(key_.kv_heads, std::min<std::int64_t>(most_heads_, fitting));
    for (std::int64_t range = 0; range < num_ranges; ++range) {
      const auto kv_head = static_cast<std::int32_t>(key_.kv_heads * range / num_ranges);
      const auto end_head = static_cast<std::int32_t>(key_.kv_heads * (range + 1) / num_ranges);
      for (std::int64_t i = 0; i < num_units; ++i) {
        const std::int64_t first = rows * i / num_units, end = rows * (i + 1) / num_units;
        add_unit({segment, kv_head, end_head - kv_head, static_cast<std::int32_t>(end - first),
                  first});
      }
    }
  }

  void add_unit(const UnitRows& rows) {
    const std::int64_t last = (rows.first + rows.num_rows - 1) / key_.group();
    const std::int32_t limit = wave_.rows_of(rows.segment)[last].limit;
    const auto num_tiles = static_cast<std::int32_t>(ceil_div(limit, kTileTokens));
    // Cycles a tile and element of a head: arithmetic of the rows, or memory for all of them.
    const double tile_cost = std::max(40.0 * rows.num_rows, 114.0 * key_.element_bytes);
    const double cost = tile_cost * num_tiles * rows.num_heads;
    total_cost_ += cost;
    wave_.units.push_back({rows, 0, num_tiles, false, 0, cost});
  }

  // Cuts in ranges of tiles what would keep one thread busy while the others wait.
  void split_units() {
    if (key_.num_threads == 1) return;
    const double most = total_cost_ / (key_.num_threads * kUnitsPerThread);
    std::vector<Unit> units;
    for (const Unit& unit : wave_.units) {
      const auto num_ranges =
          std::min<std::int64_t>(unit.tile_end, static_cast<std::int64_t>(unit.cost / most) + 1);
      if (num_ranges <= 1) {
        units.push_back(unit);
      } else {
        split_unit(unit, num_ranges, units);
      }
    }
    wave_.units = std::move(units);
  }

  void split_unit(const Unit& unit, std::int64_t num_ranges, std::vector<Unit>& units) {
    const std::int64_t num_tiles = unit.tile_end;
    const auto tile_floats = static_cast<std::size_t>(unit.rows.num_states()) *
                             static_cast<std::size_t>(state_floats(key_.head_dim));
    wave_.splits.push_back({unit.rows, unit.tile_end, wave_.tile_floats});
    for (std::int64_t i = 0; i < num_ranges; ++i) {
      const std::int64_t begin = num_tiles * i / num_ranges, end = num_tiles * (i + 1) / num_ranges;
      units.push_back({unit.rows, static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end),
                       true, wave_.tile_floats + static_cast<std::size_t>(begin) * tile_floats,
                       unit.cost * static_cast<double>(end - begin) / static_cast<double>(num_tiles)});
    }
    wave_.tile_floats += static_cast<std::size_t>(num_tiles) * tile_floats;
  }

  const Plan& plan_;
  const ScheduleKey& key_;
  const std::span<const Piece> pieces_;
  Wave wave_;
  std::vector<std::size_t> next_;  // where the next row of a segment goes
  std::int32_t most_heads_ = 1;    // that a unit takes
  double total_cost_ = 0;
};

}  // namespace

Schedule make_schedule(const Plan& plan, const ScheduleKey& key) {
  Schedule schedule;
  for (const std::vector<Piece>& pieces : cut_in_waves(plan, key)) {
    schedule.waves.push_back(WaveMaker(plan, key, pieces).make());
  }
  return schedule;
}

}  // namespace thoth

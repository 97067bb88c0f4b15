#include "channel_served.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace thoth {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

void check_layers(const ChannelSizes& sizes, const std::vector<KvCache>& layers) {
  if (layers.empty()) refuse("there is no layer");
  for (const KvCache& layer : layers) {
    if (layer.head_dim != sizes.head_dim || sizes.heads % layer.kv_heads != 0) {
      refuse("the channel has " + std::to_string(sizes.heads) + " heads of " +
             std::to_string(sizes.head_dim) + ", the blocks " + std::to_string(layer.kv_heads) +
             " kv heads of " + std::to_string(layer.head_dim));
    }
  }
}

// The numbers of a lane's plan, as many of each array as `counts` says, copied once for all.
std::vector<std::int32_t> copied_numbers(const LaneView& view, const ChannelSizes& sizes,
                                         std::array<std::int32_t, kStepArrays>& counts) {
  std::int64_t total = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    counts[i] = view.request->counts[i].load(std::memory_order_relaxed);
    if (counts[i] < 0) refuse("an array of the step has " + std::to_string(counts[i]) + " entries");
    total += counts[i];
  }
  if (total > sizes.plan_numbers) {
    refuse("the step has " + std::to_string(total) + " numbers, the channel " +
           std::to_string(sizes.plan_numbers));
  }
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(total));
  if (total > 0) std::memcpy(numbers.data(), view.numbers, numbers.size() * sizeof(std::int32_t));
  return numbers;
}

void say(const LaneView& view, ChannelError error, const char* text) {
  std::memcpy(view.answer->text, text, std::min(std::strlen(text) + 1, kErrorChars));
  view.answer->error.store(static_cast<std::int32_t>(error), std::memory_order_relaxed);
}

}  // namespace

ServedChannel::ServedChannel(std::shared_ptr<ChannelMemory> memory, Bell work, Bell answers,
                             std::vector<KvCache> layers)
    : memory_(std::move(memory)),
      work_(std::move(work)),
      answers_(std::move(answers)),
      layers_(std::move(layers)) {
  check_layers(memory_->sizes(), layers_);
  for (int lane = 0; lane < memory_->sizes().lanes; ++lane) {
    const LaneView view = memory_->lane(lane);
    // What another server answered is not answered again.
    lanes_.push_back({view, view.answer->sequence.load(), 0, {}, nullptr});
  }
}

void ServedChannel::say_asleep(bool is_asleep) {
  memory_->flags().server_sleeps.store(is_asleep ? 1 : 0);
}

bool ServedChannel::has_work() const {
  return std::any_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) {
    return lane.view.request->sequence.load() != lane.answered;
  });
}

bool ServedChannel::serve(Threads& threads, ServerCounts& counts) {
  bool has_served = false;
  for (Lane& lane : lanes_) {
    const std::uint64_t sequence = lane.view.request->sequence.load(std::memory_order_acquire);
    if (sequence == lane.answered) continue;
    answer(lane, sequence, threads, counts);
    has_served = true;
  }
  return has_served;
}

void ServedChannel::answer(Lane& lane, std::uint64_t sequence, Threads& threads,
                           ServerCounts& counts) {
  const auto begin = std::chrono::steady_clock::now();
  try {
    compute(lane, threads, counts);
    say(lane.view, ChannelError::none, "");
  } catch (const std::invalid_argument& error) {
    ++counts.errors;
    say(lane.view, ChannelError::refused, error.what());
  } catch (const std::exception& error) {
    ++counts.errors;
    say(lane.view, ChannelError::failed, error.what());
  }
  const std::chrono::nanoseconds taken = std::chrono::steady_clock::now() - begin;
  const auto taken_ns = static_cast<std::uint64_t>(taken.count());
  counts.busy_ns += taken_ns;
  lane.view.answer->taken_ns.store(taken_ns, std::memory_order_relaxed);
  lane.answered = sequence;
  lane.view.answer->sequence.store(sequence);
  if (memory_->flags().client_sleeps.load() != 0) answers_.ring();
}

void ServedChannel::compute(Lane& lane, Threads& threads, ServerCounts& counts) {
  const LaneRequest& request = *lane.view.request;
  const std::int32_t layer = request.layer.load(std::memory_order_relaxed);
  if (layer < 0 || static_cast<std::size_t>(layer) >= layers_.size()) {
    refuse("layer is " + std::to_string(layer) + " of " + std::to_string(layers_.size()));
  }
  const std::uint64_t number = request.plan.load(std::memory_order_relaxed);
  if (number == 0 || number != lane.number) {
    lay_out(lane, number);
    ++counts.steps;
  }
  const auto num_parts = static_cast<int>(lane.rows.size());
  const AttentionRows rows{gather(lane), lane.view.o, lane.view.lse, num_parts,
                           memory_->sizes().heads};
  lane.plan->attend(rows, layers_[static_cast<std::size_t>(layer)], threads);
  ++counts.layers;
  counts.parts += lane.rows.size();
}

void ServedChannel::lay_out(Lane& lane, std::uint64_t number) {
  lane.number = 0;
  lane.plan.reset();
  std::array<std::int32_t, kStepArrays> counts{};
  const std::vector<std::int32_t> numbers =
      copied_numbers(lane.view, memory_->sizes(), counts);
  const StepPlan plan = step_plan(
      lane.view.request->num_queries.load(std::memory_order_relaxed), numbers, counts);
  check_step_plan(plan, memory_->sizes());
  auto laid_out = std::make_unique<AttentionPlan>(plan.attention);
  check_blocks(plan.attention);
  lane.rows.assign(plan.rows.begin(), plan.rows.end());
  lane.plan = std::move(laid_out);
  lane.number = number;
}

// No segment has more blocks than there are: what a layer takes is bounded by them.
void ServedChannel::check_blocks(const PlanArrays& plan) const {
  for (std::size_t s = 0; s + 1 < plan.segment_offsets.size(); ++s) {
    const std::int64_t count = plan.segment_offsets[s + 1] - plan.segment_offsets[s];
    if (count > layers_.front().num_blocks) {
      refuse("segment " + std::to_string(s) + " has " + std::to_string(count) + " of " +
             std::to_string(layers_.front().num_blocks) + " blocks");
    }
  }
}

const float* ServedChannel::gather(const Lane& lane) {
  const ChannelSizes& sizes = memory_->sizes();
  const std::size_t row =
      static_cast<std::size_t>(sizes.heads) * static_cast<std::size_t>(sizes.head_dim);
  if (q_.size() < lane.rows.size() * row) q_.resize(lane.rows.size() * row);
  float* to = q_.data();
  for (const std::int32_t query : lane.rows) {
    std::memcpy(to, lane.view.q + static_cast<std::size_t>(query) * row, row * sizeof(float));
    to += row;
  }
  return q_.data();
}

}  // namespace thoth

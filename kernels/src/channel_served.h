// One client's channel at the server: looks into its lanes, checks what is asked, and answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attention.h"
#include "bell.h"
#include "channel_memory.h"
#include "channel_plan.h"
#include "threads.h"

namespace thoth {

// Since the server began.
struct ServerCounts {
  std::atomic<std::uint64_t> steps{0};   // plans that were laid out
  std::atomic<std::uint64_t> layers{0};  // answered with states
  std::atomic<std::uint64_t> parts{0};   // of those layers
  std::atomic<std::uint64_t> errors{0};  // requests answered with one
  std::atomic<std::uint64_t> busy_ns{0};
};

class ServedChannel {
 public:
  // `layers` are the client's keys and values, which outlive this. Throws std::invalid_argument
  // where they do not fit the channel's heads.
  ServedChannel(std::shared_ptr<ChannelMemory> memory, Bell work, Bell answers,
                std::vector<KvCache> layers);

  int work_bell() const { return work_.fd(); }
  void say_asleep(bool is_asleep);
  bool has_work() const;
  // Whether anything was asked, in any lane.
  bool serve(Threads& threads, ServerCounts& counts);

 private:
  struct Lane {
    LaneView view;
    std::uint64_t answered;
    // What the step's layers have in common. No plan is number 0.
    std::uint64_t number = 0;
    std::vector<std::int32_t> rows;
    std::unique_ptr<AttentionPlan> plan;
  };

  void answer(Lane& lane, std::uint64_t sequence, Threads& threads, ServerCounts& counts);
  void compute(Lane& lane, Threads& threads, ServerCounts& counts);
  void lay_out(Lane& lane, std::uint64_t number);
  void check_blocks(const PlanArrays& plan) const;
  const float* gather(const Lane& lane);

  std::shared_ptr<ChannelMemory> memory_;
  Bell work_;
  Bell answers_;
  std::vector<KvCache> layers_;
  std::vector<Lane> lanes_;
  std::vector<float> q_;  // [parts, heads, head_dim] of the layer that is computed
};

}  // namespace thoth

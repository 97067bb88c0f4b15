// The engine's end of a channel. One caller at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bell.h"
#include "channel_memory.h"
#include "channel_plan.h"

namespace thoth {

// The peer is dead, late or wrong: nothing comes through this channel any more.
class PeerLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

using Seconds = std::chrono::duration<double>;

// Misuse throws std::invalid_argument and changes nothing; a loss throws PeerLost and closes.
class ChannelClient {
 public:
  // Creates the channel. `peer` is a pidfd, which stays the caller's; for so long as `spin` it
  // looks for an answer before it sleeps.
  ChannelClient(const ChannelSizes& sizes, int peer, std::chrono::microseconds spin);

  // What the server has to be given; without them once the channel is closed.
  const std::shared_ptr<ChannelMemory>& memory() const { return memory_; }
  int work_bell() const { return work_.fd(); }
  int answer_bell() const { return answers_.fd(); }

  // A step begins in a lane. Waits for the answer to a layer that the step before left behind.
  void begin(int lane, const StepPlan& plan, Seconds timeout);
  // `q` is [num_queries, heads, head_dim] of the step's plan, and copied.
  void post(int lane, int layer, const float* q);
  // The states of the layer that was posted, o [parts, heads, head_dim] and lse [parts, heads].
  void collect(int lane, int layer, float* o, float* lse, Seconds timeout);
  void close();

  std::int32_t num_queries(int lane) const { return at(lane).num_queries; }
  std::int32_t num_parts(int lane) const { return at(lane).num_parts; }
  const ChannelSizes& sizes() const { return sizes_; }
  // What the server computed for the layers that were collected since the lane's `begin`.
  Seconds busy(int lane) const { return std::chrono::nanoseconds(at(lane).busy_ns); }
  // Answers that were not to what was posted last.
  std::uint64_t num_ignored() const { return num_ignored_; }

 private:
  using Clock = std::chrono::steady_clock;

  struct Lane {
    std::uint64_t posted = 0;
    std::uint64_t seen = 0;  // the answer that was there when it was looked for last
    bool is_waiting = false;
    int layer = -1;
    std::int32_t num_queries = 0;
    std::int32_t num_parts = 0;
    std::int64_t busy_ns = 0;
  };

  const Lane& at(int lane) const;
  Lane& open_lane(int lane);
  bool has_answer(int lane);
  void wait(int lane, Seconds timeout);
  bool spin(int lane, Clock::time_point until);
  void sleep(int lane, Clock::time_point until);
  bool is_peer_dead() const;
  void check_answer(int lane);
  [[noreturn]] void lose(const std::string& why);

  const ChannelSizes sizes_;
  const std::chrono::microseconds spin_;
  std::shared_ptr<ChannelMemory> memory_;
  Descriptor peer_;
  Bell work_;
  Bell answers_;
  std::vector<Lane> lanes_;
  std::uint64_t num_plans_ = 0;
  std::uint64_t num_ignored_ = 0;
  std::string lost_ = "the channel was closed";
};

}  // namespace thoth

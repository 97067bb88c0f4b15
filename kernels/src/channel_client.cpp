#include "channel_client.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "relax.h"

namespace thoth {
namespace {

constexpr int kLooksPerClock = 32;
// The server may say what it likes: of no layer more than a minute is believed.
constexpr std::uint64_t kLongestNs = 60'000'000'000;

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

std::size_t row_floats(const ChannelSizes& sizes) {
  return static_cast<std::size_t>(sizes.heads) * static_cast<std::size_t>(sizes.head_dim);
}

void copy(float* to, const float* from, std::size_t count) {
  if (count > 0) std::memcpy(to, from, count * sizeof(float));
}

}  // namespace

ChannelClient::ChannelClient(const ChannelSizes& sizes, int peer, std::chrono::microseconds spin)
    : sizes_(sizes),
      spin_(spin),
      memory_(ChannelMemory::create(sizes)),
      peer_(Descriptor::copy_of(peer, "the peer's pidfd")),
      lanes_(static_cast<std::size_t>(sizes.lanes)) {}

const ChannelClient::Lane& ChannelClient::at(int lane) const {
  if (lane < 0 || lane >= sizes_.lanes) {
    refuse("lane is " + std::to_string(lane) + " of " + std::to_string(sizes_.lanes));
  }
  return lanes_[static_cast<std::size_t>(lane)];
}

ChannelClient::Lane& ChannelClient::open_lane(int lane) {
  if (!memory_) throw PeerLost(lost_);
  return const_cast<Lane&>(at(lane));
}

void ChannelClient::begin(int lane, const StepPlan& plan, Seconds timeout) {
  Lane& mine = open_lane(lane);
  check_step_plan(plan, sizes_);
  if (is_peer_dead()) lose("the attention worker's process has ended");
  if (mine.is_waiting) wait(lane, timeout);
  const LaneView view = memory_->lane(lane);
  std::int32_t* next = view.numbers;
  int i = 0;
  for (const auto& array : plan.arrays()) {
    next = std::copy(array.begin(), array.end(), next);
    view.request->counts[i++].store(static_cast<std::int32_t>(array.size()),
                                    std::memory_order_relaxed);
  }
  view.request->num_queries.store(plan.num_queries, std::memory_order_relaxed);
  view.request->plan.store(++num_plans_, std::memory_order_relaxed);
  mine.num_queries = plan.num_queries;
  mine.num_parts = static_cast<std::int32_t>(plan.rows.size());
  mine.busy_ns = 0;
}

void ChannelClient::post(int lane, int layer, const float* q) {
  Lane& mine = open_lane(lane);
  if (mine.is_waiting) {
    refuse("layer " + std::to_string(layer) + " is posted before layer " +
           std::to_string(mine.layer) + " was collected");
  }
  const LaneView view = memory_->lane(lane);
  copy(view.q, q, static_cast<std::size_t>(mine.num_queries) * row_floats(sizes_));
  view.request->layer.store(layer, std::memory_order_relaxed);
  mine.layer = layer;
  mine.is_waiting = true;
  view.request->sequence.store(++mine.posted);
  if (memory_->flags().server_sleeps.load() != 0) work_.ring();
}

void ChannelClient::collect(int lane, int layer, float* o, float* lse, Seconds timeout) {
  Lane& mine = open_lane(lane);
  if (!mine.is_waiting || mine.layer != layer) {
    refuse("layer " + std::to_string(layer) + " is collected and was not posted");
  }
  wait(lane, timeout);
  check_answer(lane);
  const LaneView view = memory_->lane(lane);
  const std::uint64_t taken_ns = view.answer->taken_ns.load(std::memory_order_relaxed);
  mine.busy_ns += static_cast<std::int64_t>(std::min(taken_ns, kLongestNs));
  const auto parts = static_cast<std::size_t>(mine.num_parts);
  copy(o, view.o, parts * row_floats(sizes_));
  copy(lse, view.lse, parts * static_cast<std::size_t>(sizes_.heads));
}

void ChannelClient::close() {
  memory_.reset();
  peer_ = Descriptor();
  work_ = Bell(Descriptor());
  answers_ = Bell(Descriptor());
}

void ChannelClient::lose(const std::string& why) {
  lost_ = why;
  close();
  throw PeerLost(why);
}

bool ChannelClient::has_answer(int lane) {
  Lane& mine = lanes_[static_cast<std::size_t>(lane)];
  const std::uint64_t answered = memory_->lane(lane).answer->sequence.load();
  if (answered != mine.posted && answered != mine.seen) ++num_ignored_;
  mine.seen = answered;
  return answered == mine.posted;
}

void ChannelClient::wait(int lane, Seconds timeout) {
  const auto now = Clock::now();
  const auto until = now + std::chrono::duration_cast<Clock::duration>(timeout);
  if (!spin(lane, std::min(until, now + spin_))) sleep(lane, until);
  lanes_[static_cast<std::size_t>(lane)].is_waiting = false;
}

bool ChannelClient::spin(int lane, Clock::time_point until) {
  do {
    for (int look = 0; look < kLooksPerClock; ++look) {
      if (has_answer(lane)) return true;
      relax();
    }
    std::this_thread::yield();  // the server may be waiting for this very processor
  } while (Clock::now() < until);
  return false;
}

// An answer that came before the peer died counts, and so does one that came at the last moment.
void ChannelClient::sleep(int lane, Clock::time_point until) {
  std::atomic<std::uint32_t>& sleeps = memory_->flags().client_sleeps;
  bool is_dead = false, is_late = false;
  for (;;) {
    sleeps.store(1);
    if (has_answer(lane)) break;
    if (is_dead) lose("the attention worker's process has ended");
    if (is_late) lose("the attention worker gave no answer in time");
    const auto left = std::max(until - Clock::now(), Clock::duration::zero());
    const auto whole = std::chrono::duration_cast<std::chrono::seconds>(left);
    const timespec limit{static_cast<time_t>(whole.count()),
                         static_cast<long>(std::chrono::nanoseconds(left - whole).count())};
    pollfd ready[] = {{answers_.fd(), POLLIN, 0}, {peer_.get(), POLLIN, 0}};
    if (ppoll(ready, 2, &limit, nullptr) < 0) ready[0].revents = ready[1].revents = 0;
    if (ready[0].revents != 0) answers_.quieten();
    is_dead = ready[1].revents != 0;
    is_late = Clock::now() >= until;
  }
  sleeps.store(0);
}

bool ChannelClient::is_peer_dead() const {
  pollfd ready{peer_.get(), POLLIN, 0};
  return poll(&ready, 1, 0) == 1;
}

void ChannelClient::check_answer(int lane) {
  const LaneAnswer& answer = *memory_->lane(lane).answer;
  if (answer.error.load(std::memory_order_relaxed) == 0) return;
  const std::string text(answer.text, strnlen(answer.text, kErrorChars));
  lose("the attention worker refused the step: " + text);
}

}  // namespace thoth

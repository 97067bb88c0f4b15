// The memory between a client and its server: a channel of a few lanes, each with one layer of one
// step on its way.
//
//   client                           a lane                                   server
//
//   plan, q            ---->  | request | plan | q |
//   request.sequence = n      --------- release, acquire -------->            sees a new n
//   rings if the server sleeps                                                copies and checks
//                             | answer | o | lse |   <----          states, or what was wrong
//   sees n             <--------- acquire, release ---------                  answer.sequence = n
//   copies o and lse                                              rings if the client sleeps
//
// A lane is the client's until it posts and the server's until it answers, so that nothing in it is
// written by one while the other reads it. The plan of a step stays for all of its layers.
//
// Nobody's ring is missed. Before it sleeps a side says so in its flag, and then looks once more;
// the other writes its sequence, and then looks at the flag. All four are in one total order:
//
//   server   server_sleeps = 1 ; request.sequence ?  -> it sees n, or sleeps after the flag
//   client   request.sequence = n ; server_sleeps ?  -> it sees the flag, or wrote before the look
//
// The server believes nothing that it reads: each number is loaded once and checked afterwards, the
// sizes are those that it read when the channel was added, and q may hold what it likes. The client
// believes no answer but that of the sequence it posted. After a loss it never maps this memory
// again, so that whoever wakes late writes where nobody reads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "descriptor.h"

namespace thoth {

// What a channel can carry, fixed for its life. `plan_numbers` are int32, of all arrays together.
struct ChannelSizes {
  std::int32_t lanes;
  std::int32_t heads;
  std::int32_t head_dim;
  std::int32_t max_queries;
  std::int32_t max_parts;
  std::int32_t plan_numbers;

  bool operator==(const ChannelSizes&) const = default;
};

constexpr std::size_t kLine = 64;
constexpr std::size_t kErrorChars = 108;
// `rows`, then the arrays of `PlanArrays` in their order.
constexpr int kStepArrays = 7;

struct ChannelHeader {
  char magic[8];
  std::uint32_t format;
  ChannelSizes sizes;
  std::uint64_t bytes;  // of the whole memory

  bool operator==(const ChannelHeader&) const = default;
};

// Zeros, as new memory is, are the beginning of all that follows.
struct ChannelFlags {
  alignas(kLine) std::atomic<std::uint32_t> client_sleeps;
  alignas(kLine) std::atomic<std::uint32_t> server_sleeps;
};

struct alignas(kLine) LaneRequest {
  std::atomic<std::uint64_t> sequence;
  std::atomic<std::uint64_t> plan;  // another number is another plan
  std::atomic<std::int32_t> layer;
  std::atomic<std::int32_t> num_queries;
  std::atomic<std::int32_t> counts[kStepArrays];
};

enum class ChannelError : std::int32_t {
  none,
  refused,  // the request cannot be: the client is wrong
  failed,   // the server could not: it has no memory
};

struct alignas(kLine) LaneAnswer {
  std::atomic<std::uint64_t> sequence;
  std::atomic<std::uint64_t> taken_ns;  // that the server computed for this answer
  std::atomic<std::int32_t> error;
  char text[kErrorChars];
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::int32_t>::is_always_lock_free);
static_assert(sizeof(LaneRequest) == kLine && sizeof(LaneAnswer) == 2 * kLine);

// A lane's areas: `numbers` [plan_numbers], q [max_queries, heads, head_dim], o [max_parts, heads,
// head_dim], lse [max_parts, heads].
struct LaneView {
  LaneRequest* request;
  LaneAnswer* answer;
  std::int32_t* numbers;
  float* q;
  float* o;
  float* lse;
};

// The memory, mapped for as long as this lives.
class ChannelMemory {
 public:
  // New, without a name, never shorter again. Throws std::invalid_argument for sizes that are none,
  // std::system_error when there is no memory.
  static std::shared_ptr<ChannelMemory> create(const ChannelSizes& sizes);
  // What another process created; `fd` stays the caller's. Throws std::invalid_argument when that
  // is no channel of these sizes, or could be cut off under its reader.
  static std::shared_ptr<ChannelMemory> open(int fd, const ChannelSizes& sizes);

  ChannelMemory(Descriptor fd, const ChannelSizes& sizes);
  ~ChannelMemory();
  ChannelMemory(const ChannelMemory&) = delete;
  ChannelMemory& operator=(const ChannelMemory&) = delete;

  int fd() const { return fd_.get(); }
  const ChannelSizes& sizes() const { return sizes_; }
  std::size_t bytes() const { return bytes_; }
  ChannelFlags& flags() const;
  LaneView lane(int lane) const;

 private:
  const Descriptor fd_;
  const ChannelSizes sizes_;
  const std::size_t bytes_;
  char* const base_;
};

}  // namespace thoth

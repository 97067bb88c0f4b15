// A client and a server in two threads. Where a test does not say otherwise they share one mapping,
// so that the thread sanitizer sees both sides of every number.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "channel_client.h"
#include "channel_server.h"
#include "check.h"

using namespace thoth;

namespace {

constexpr ChannelSizes kSizes{2, 4, 16, 64, 128, 4096};
constexpr int kKvHeads = 2;
constexpr int kBlocks = 24;
constexpr int kLayers = 3;
constexpr Seconds kSoon{20.0};

int own_pidfd() { return static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)); }

std::vector<float> numbers(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

// Keys and values of all layers.
struct Kv {
  static constexpr std::size_t kBlock = std::size_t{kBlockTokens} * kKvHeads * 16;
  std::vector<float> k = numbers(kLayers * kBlocks * kBlock, 1);
  std::vector<float> v = numbers(kLayers * kBlocks * kBlock, 2);

  std::vector<KvCache> layers() {
    std::vector<KvCache> out;
    for (std::size_t i = 0; i < kLayers; ++i) {
      const std::size_t begin = i * kBlocks * kBlock;
      out.push_back({reinterpret_cast<char*>(&k[begin]), reinterpret_cast<char*>(&v[begin]),
                     4 * kBlock, 4 * kBlock, kBlocks, kKvHeads, kSizes.head_dim,
                     KvType::float32});
    }
    return out;
  }
};

// Some rows of random contexts: a segment for all, then one of their own.
struct Step {
  std::vector<std::int32_t> rows, run_rows, run_offsets{0}, run_segments, tokens{40},
      offsets{0, 3}, blocks{0, 1, 2};
  std::int32_t num_queries;

  Step(int parts, unsigned seed) : num_queries(1 + parts / 2) {
    std::mt19937 random(seed);
    for (int part = 0; part < parts; ++part) {
      rows.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(num_queries)));
      run_rows.insert(run_rows.end(), {part, 1});
      run_segments.insert(run_segments.end(), {0, part + 1});
      run_offsets.push_back(2 * part + 2);
      tokens.push_back(1 + static_cast<std::int32_t>(random() % kBlockTokens));
      blocks.push_back(3 + static_cast<std::int32_t>(random() % (kBlocks - 3)));
      offsets.push_back(static_cast<std::int32_t>(blocks.size()));
    }
  }

  StepPlan plan() const {
    return {num_queries, rows, {run_rows, run_offsets, run_segments, tokens, offsets, blocks}};
  }
};

constexpr std::size_t kRow = 4 * 16;

struct States {
  std::vector<float> o, lse;

  explicit States(std::size_t parts) : o(parts * kRow), lse(parts * 4) {}
  bool operator==(const States&) const = default;
};

// As it is computed without a channel.
States truth(const Step& step, const std::vector<float>& q, const KvCache& layer) {
  States states(step.rows.size());
  std::vector<float> gathered;
  for (const std::int32_t row : step.rows) {
    const float* from = q.data() + static_cast<std::size_t>(row) * kRow;
    gathered.insert(gathered.end(), from, from + kRow);
  }
  Threads threads(1);
  AttentionPlan plan(step.plan().attention);
  plan.attend({gathered.data(), states.o.data(), states.lse.data(),
               static_cast<int>(step.rows.size()), kSizes.heads}, layer, threads);
  return states;
}

// A server at work in a thread of its own.
struct Served {
  Threads threads{2};
  ChannelServer server;
  std::thread thread;

  explicit Served(int spin_us) : server(threads, std::chrono::microseconds(spin_us)) {
    thread = std::thread([this] { server.run(); });
  }
  ~Served() {
    server.stop();
    thread.join();
  }
};

struct Client {
  Descriptor self{own_pidfd(), "pidfd_open"};
  ChannelClient client;

  explicit Client(int spin_us = 20)
      : client(kSizes, self.get(), std::chrono::microseconds(spin_us)) {}

  int join(ChannelServer& server, Kv& kv) {
    return server.add(client.memory(), client.work_bell(), client.answer_bell(), kv.layers());
  }
  // As from another process, with a mapping of its own.
  int join_apart(ChannelServer& server, Kv& kv) {
    return server.add(ChannelMemory::open(client.memory()->fd(), kSizes), client.work_bell(),
                      client.answer_bell(), kv.layers());
  }
};

std::vector<float> queries(const Step& step, unsigned seed) {
  return numbers(static_cast<std::size_t>(step.num_queries) * kRow, seed);
}

void check_step(ChannelClient& client, int lane, Kv& kv, unsigned seed) {
  const Step step(static_cast<int>(seed % 60), seed);
  client.begin(lane, step.plan(), kSoon);
  for (const int layer : {2, 0, 1}) {
    const auto q = queries(step, seed + static_cast<unsigned>(layer));
    States states(step.rows.size());
    client.post(lane, layer, q.data());
    client.collect(lane, layer, states.o.data(), states.lse.data(), kSoon);
    CHECK(states == truth(step, q, kv.layers()[static_cast<std::size_t>(layer)]));
  }
}

template <typename Call>
bool is_lost(Call&& call) {
  try {
    call();
  } catch (const PeerLost&) {
    return true;
  }
  return false;
}

template <typename Call>
bool is_refused(Call&& call) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

}  // namespace

CASE(states_through_a_channel_are_those_without_one) {
  Kv kv;
  Served served(50);
  Client client;
  client.join(served.server, kv);
  for (unsigned seed = 0; seed < 40; ++seed) {
    check_step(client.client, static_cast<int>(seed % 2), kv, seed);
  }
  CHECK(served.server.counts().layers == 120 && served.server.counts().errors == 0);
  CHECK(served.server.counts().steps == 40);
}

CASE(no_ring_is_missed_however_little_anybody_spins) {
  Kv kv;
  for (const int server_us : {0, 15}) {
    for (const int client_us : {0, 15}) {
      Served served(server_us);
      Client client(client_us);
      client.join(served.server, kv);
      const Step step(1, 5);
      const auto q = queries(step, 1);
      States states(1);
      client.client.begin(0, step.plan(), kSoon);
      for (int i = 0; i < 2000; ++i) {
        client.client.post(0, 1, q.data());
        client.client.collect(0, 1, states.o.data(), states.lse.data(), kSoon);
      }
    }
  }
}

CASE(two_lanes_cross) {
  Kv kv;
  Served served(50);
  Client client;
  client.join(served.server, kv);
  const Step a(7, 3), b(21, 4);
  client.client.begin(0, a.plan(), kSoon);
  client.client.begin(1, b.plan(), kSoon);
  for (int i = 0; i < 50; ++i) {
    const auto qa = queries(a, static_cast<unsigned>(i)), qb = queries(b, static_cast<unsigned>(i));
    States sa(a.rows.size()), sb(b.rows.size());
    client.client.post(0, i % kLayers, qa.data());
    client.client.post(1, 0, qb.data());
    client.client.collect(1, 0, sb.o.data(), sb.lse.data(), kSoon);
    client.client.collect(0, i % kLayers, sa.o.data(), sa.lse.data(), kSoon);
    CHECK(sa == truth(a, qa, kv.layers()[static_cast<std::size_t>(i % kLayers)]));
    CHECK(sb == truth(b, qb, kv.layers()[0]));
  }
}

CASE(clients_come_and_go_while_others_are_served) {
  Kv kv;
  Served served(30);
  std::thread other([&] {
    for (unsigned seed = 0; seed < 30; ++seed) {
      Client client;
      const int number = client.join(served.server, kv);
      check_step(client.client, 0, kv, seed);
      served.server.remove(number);
    }
  });
  Client client;
  client.join(served.server, kv);
  for (unsigned seed = 0; seed < 60; ++seed) check_step(client.client, 1, kv, seed);
  other.join();
  CHECK(is_refused([&] { served.server.remove(99); }));
}

CASE(a_step_left_behind_does_not_disturb_the_next) {
  Kv kv;
  Served served(50);
  Client client;
  client.join(served.server, kv);
  for (unsigned seed = 1; seed < 20; ++seed) {
    const Step step(30, seed);
    const auto q = queries(step, seed);
    client.client.begin(0, step.plan(), kSoon);
    client.client.post(0, 0, q.data());
    check_step(client.client, 0, kv, seed);
  }
}

CASE(answers_to_something_else_are_counted_and_ignored) {
  Client client;
  const Step step(2, 1);
  const auto q = queries(step, 1);
  States states(2);
  client.client.begin(0, step.plan(), kSoon);
  client.client.post(0, 0, q.data());
  const auto memory = client.client.memory();
  const LaneView lane = memory->lane(0);
  lane.answer->sequence.store(7);
  // A server that gives the good answer when the client has seen the other one.
  std::thread late([&] {
    while (memory->flags().client_sleeps.load() == 0) std::this_thread::yield();
    std::fill_n(lane.o, 2 * kRow, 5.0f);
    lane.answer->sequence.store(1);
    Bell(Descriptor::copy_of(client.client.answer_bell(), "bell")).ring();
  });
  client.client.collect(0, 0, states.o.data(), states.lse.data(), kSoon);
  late.join();
  CHECK(states.o == std::vector<float>(2 * kRow, 5.0f));
  CHECK(client.client.num_ignored() == 1);
  // The answer that was good once is none to the next layer.
  client.client.post(0, 1, q.data());
  lane.answer->sequence.store(1);
  CHECK(is_lost([&] {
    client.client.collect(0, 1, states.o.data(), states.lse.data(), Seconds(0.05));
  }));
}

CASE(after_a_loss_everything_is_lost_and_the_memory_is_let_go) {
  Client client;
  const Step step(2, 1);
  const auto q = queries(step, 1);
  States states(2);
  client.client.begin(0, step.plan(), kSoon);
  client.client.post(0, 0, q.data());
  const std::weak_ptr<ChannelMemory> memory = client.client.memory();
  const auto collect = [&] {
    client.client.collect(0, 0, states.o.data(), states.lse.data(), Seconds(0.01));
  };
  CHECK(is_lost(collect));
  CHECK(memory.expired());
  CHECK(is_lost(collect));
  CHECK(is_lost([&] { client.client.begin(1, step.plan(), kSoon); }));
  CHECK(is_lost([&] { client.client.post(1, 0, q.data()); }));
}

CASE(misuse_is_refused_and_changes_nothing) {
  Kv kv;
  Served served(50);
  Client client;
  client.join(served.server, kv);
  ChannelClient& c = client.client;
  const Step step(4, 1), large(129, 1);
  const auto q = queries(step, 1);
  States states(4);
  CHECK(is_refused([&] { c.begin(2, step.plan(), kSoon); }));
  CHECK(is_refused([&] { c.begin(0, large.plan(), kSoon); }));
  c.begin(0, step.plan(), kSoon);
  CHECK(is_refused([&] { c.collect(0, 0, states.o.data(), states.lse.data(), kSoon); }));
  c.post(0, 0, q.data());
  CHECK(is_refused([&] { c.post(0, 1, q.data()); }));
  CHECK(is_refused([&] { c.collect(0, 1, states.o.data(), states.lse.data(), kSoon); }));
  c.collect(0, 0, states.o.data(), states.lse.data(), kSoon);
  CHECK(states == truth(step, q, kv.layers()[0]));
}

CASE(a_wrong_step_is_answered_with_what_is_wrong) {
  Kv kv;
  Served served(50);
  const auto answered = [&](int layer, auto damage) {
    Client client;
    client.join(served.server, kv);
    Step step(4, 1);
    damage(step);
    const auto q = queries(step, 1);
    States states(4);
    client.client.begin(0, step.plan(), kSoon);
    client.client.post(0, layer, q.data());
    return is_lost([&] {
      client.client.collect(0, layer, states.o.data(), states.lse.data(), kSoon);
    });
  };
  CHECK(answered(kLayers, [](Step&) {}));
  CHECK(answered(-1, [](Step&) {}));
  CHECK(answered(0, [](Step& s) { s.blocks[1] = kBlocks; }));
  CHECK(answered(0, [](Step& s) { s.blocks[1] = -1; }));
  CHECK(answered(0, [](Step& s) { s.tokens[0] = 1 << 20; }));
  CHECK(answered(0, [](Step& s) { s.run_segments[1] = 9; }));
  CHECK(served.server.counts().errors == 6);
  CHECK(!answered(0, [](Step&) {}));
}

// A hostile client: bytes at random over its lanes, at any moment.
CASE(garbage_is_answered_and_others_are_served_well) {
  Kv kv;
  Served served(20);
  Client hostile, honest;
  hostile.join_apart(served.server, kv);
  honest.join(served.server, kv);
  std::thread noise([&] {
    std::mt19937 random(7);
    const auto memory = ChannelMemory::open(hostile.client.memory()->fd(), kSizes);
    const Step step(5, 2);
    const Bell bell(Descriptor::copy_of(hostile.client.work_bell(), "bell"));
    for (std::uint64_t i = 1; i < 4000; ++i) {
      const LaneView lane = memory->lane(static_cast<int>(i % 2));
      // A good plan, and a few numbers of it, or of the request, turned into others.
      std::int32_t* next = lane.numbers;
      int n = 0;
      for (const auto& array : step.plan().arrays()) {
        next = std::copy(array.begin(), array.end(), next);
        lane.request->counts[n++] = static_cast<std::int32_t>(array.size());
      }
      lane.request->num_queries = step.num_queries;
      lane.request->layer = static_cast<std::int32_t>(random() % 4);
      for (unsigned hit = random() % 4; hit > 0; --hit) {
        const auto value = static_cast<std::int32_t>(random() >> (random() % 32));
        if (random() % 4 == 0) {
          lane.request->counts[random() % kStepArrays] = value;
        } else {
          lane.numbers[random() % static_cast<unsigned>(next - lane.numbers)] = value;
        }
      }
      lane.q[random() % 64] = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
      lane.request->plan = i;
      lane.request->sequence = i;
      bell.ring();
      if (i % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  for (unsigned seed = 0; seed < 40; ++seed) check_step(honest.client, 0, kv, seed);
  noise.join();
  for (unsigned seed = 0; seed < 10; ++seed) check_step(honest.client, 0, kv, seed);
  CHECK(served.server.counts().errors > 0);
}

CASE(what_is_no_channel_is_not_opened) {
  Client client;
  const int fd = client.client.memory()->fd();
  ChannelSizes other = kSizes;
  other.heads = 8;
  CHECK(is_refused([&] { ChannelMemory::open(fd, other); }));
  other.heads = 0;
  CHECK(is_refused([&] { ChannelMemory::create(other); }));
  Bell bell;
  CHECK(is_refused([&] { ChannelMemory::open(bell.fd(), kSizes); }));
  Kv kv;
  Served served(0);
  auto layers = kv.layers();
  layers[1].head_dim = 8;
  CHECK(is_refused([&] {
    served.server.add(client.client.memory(), client.client.work_bell(),
                      client.client.answer_bell(), layers);
  }));
  const char wrong = 'X';
  CHECK(pwrite(fd, &wrong, 1, 0) == 1);
  CHECK(is_refused([&] { ChannelMemory::open(fd, kSizes); }));
}

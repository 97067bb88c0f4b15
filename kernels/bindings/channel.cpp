#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "attention_arrays.h"
#include "bindings.h"
#include "channel_client.h"
#include "channel_server.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace thoth::bindings {
namespace {

using Arrays = std::vector<Array>;

constexpr double kLongestWaitS = 1e6;

Seconds seconds(double timeout_s) {
  if (!(timeout_s > 0.0)) throw nb::value_error("timeout_s is positive");
  return Seconds(std::min(timeout_s, kLongestWaitS));
}

std::chrono::microseconds spin_of(int spin_us) {
  if (spin_us < 0) throw nb::value_error("spin_us is not negative");
  return std::chrono::microseconds(spin_us);
}

void make_client(ChannelClient* place, int lanes, int heads, int head_dim, int max_queries,
                 int max_parts, int plan_numbers, int peer, int spin_us) {
  const ChannelSizes sizes{lanes, heads, head_dim, max_queries, max_parts, plan_numbers};
  new (place) ChannelClient(sizes, peer, spin_of(spin_us));
}

void begin(ChannelClient& client, int lane, int num_queries, const Array& rows,
           const Array& run_rows, const Array& run_offsets, const Array& run_segments,
           const Array& segment_tokens, const Array& segment_offsets, const Array& block_ids,
           double timeout_s) {
  const StepPlan plan{num_queries, numbers(rows, "rows"),
                      plan_arrays(run_rows, run_offsets, run_segments, segment_tokens,
                                  segment_offsets, block_ids)};
  const Seconds timeout = seconds(timeout_s);
  const nb::gil_scoped_release unlocked;
  client.begin(lane, plan, timeout);
}

void post(ChannelClient& client, int lane, int layer, const Array& q) {
  const ChannelSizes& sizes = client.sizes();
  const float* values =
      elements<float>(q, "q", {client.num_queries(lane), sizes.heads, sizes.head_dim});
  const nb::gil_scoped_release unlocked;
  client.post(lane, layer, values);
}

void collect(ChannelClient& client, int lane, int layer, const Array& o, const Array& lse,
             double timeout_s) {
  const ChannelSizes& sizes = client.sizes();
  const long parts = client.num_parts(lane);
  float* outputs = elements<float>(o, "o", {parts, sizes.heads, sizes.head_dim});
  float* sums = elements<float>(lse, "lse", {parts, sizes.heads});
  const Seconds timeout = seconds(timeout_s);
  const nb::gil_scoped_release unlocked;
  client.collect(lane, layer, outputs, sums, timeout);
}

int memory_of(const ChannelClient& client) {
  if (!client.memory()) throw nb::value_error("the channel is closed");
  return client.memory()->fd();
}

// With the arrays that its channels read.
class HoldingServer {
 public:
  HoldingServer(Threads& threads, int spin_us) : server_(threads, spin_of(spin_us)) {}

  int add(int memory, int work_bell, int answer_bell, const ChannelSizes& sizes, Arrays k,
          Arrays v) {
    if (k.size() != v.size()) throw nb::value_error("there are as many layers of k as of v");
    std::vector<KvCache> layers;
    for (std::size_t i = 0; i < k.size(); ++i) layers.push_back(kv_cache(k[i], v[i]));
    const int number = added(memory, work_bell, answer_bell, sizes, std::move(layers));
    held_.emplace(number, std::pair(std::move(k), std::move(v)));
    return number;
  }

  void remove(int number) {
    {
      const nb::gil_scoped_release unlocked;
      server_.remove(number);
    }
    held_.erase(number);
  }

  void run() {
    const nb::gil_scoped_release unlocked;
    server_.run();
  }

  void stop() { server_.stop(); }
  const ServerCounts& counts() const { return server_.counts(); }

 private:
  int added(int memory, int work_bell, int answer_bell, const ChannelSizes& sizes,
            std::vector<KvCache> layers) {
    const nb::gil_scoped_release unlocked;
    return server_.add(ChannelMemory::open(memory, sizes), work_bell, answer_bell,
                       std::move(layers));
  }

  ChannelServer server_;
  std::map<int, std::pair<Arrays, Arrays>> held_;
};

int add(HoldingServer& server, int memory, int work_bell, int answer_bell, int lanes, int heads,
        int head_dim, int max_queries, int max_parts, int plan_numbers, Arrays k, Arrays v) {
  return server.add(memory, work_bell, answer_bell,
                    {lanes, heads, head_dim, max_queries, max_parts, plan_numbers}, std::move(k),
                    std::move(v));
}

void bind_client(nb::module_& module) {
  nb::exception<PeerLost>(module, "PeerLost");
  nb::class_<ChannelClient>(module, "ChannelClient", "The engine's end of a channel.")
      .def("__init__", &make_client, nb::kw_only(), "lanes"_a, "heads"_a, "head_dim"_a,
           "max_queries"_a, "max_parts"_a, "plan_numbers"_a, "peer"_a, "spin_us"_a)
      .def_prop_ro("memory", &memory_of)
      .def_prop_ro("work_bell", &ChannelClient::work_bell)
      .def_prop_ro("answer_bell", &ChannelClient::answer_bell)
      .def_prop_ro("num_ignored", &ChannelClient::num_ignored)
      .def("begin", &begin, "lane"_a, "num_queries"_a, "rows"_a, "run_rows"_a, "run_offsets"_a,
           "run_segments"_a, "segment_tokens"_a, "segment_offsets"_a, "block_ids"_a,
           "timeout_s"_a)
      .def("post", &post, "lane"_a, "layer"_a, "q"_a)
      .def("collect", &collect, "lane"_a, "layer"_a, "o"_a, "lse"_a, "timeout_s"_a)
      .def("busy_s", [](const ChannelClient& client, int lane) { return client.busy(lane).count(); },
           "lane"_a)
      .def("close", &ChannelClient::close);
}

void bind_server(nb::module_& module) {
  nb::class_<HoldingServer>(module, "ChannelServer", "Serves channels until it is stopped.")
      .def(nb::init<Threads&, int>(), "threads"_a, "spin_us"_a, nb::keep_alive<1, 2>())
      .def("add", &add, nb::kw_only(), "memory"_a, "work_bell"_a, "answer_bell"_a, "lanes"_a,
           "heads"_a, "head_dim"_a, "max_queries"_a, "max_parts"_a, "plan_numbers"_a, "k"_a,
           "v"_a)
      .def("remove", &HoldingServer::remove, "number"_a)
      .def("run", &HoldingServer::run)
      .def("stop", &HoldingServer::stop)
      .def_prop_ro("num_steps", [](const HoldingServer& s) { return s.counts().steps.load(); })
      .def_prop_ro("num_layers", [](const HoldingServer& s) { return s.counts().layers.load(); })
      .def_prop_ro("num_parts", [](const HoldingServer& s) { return s.counts().parts.load(); })
      .def_prop_ro("num_errors", [](const HoldingServer& s) { return s.counts().errors.load(); })
      .def_prop_ro("busy_s", [](const HoldingServer& s) {
        return 1e-9 * static_cast<double>(s.counts().busy_ns.load());
      });
}

}  // namespace

void bind_channel(nb::module_& module) {
  bind_client(module);
  bind_server(module);
}

}  // namespace thoth::bindings

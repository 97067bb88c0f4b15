// Serves the channels of any number of clients, on threads of its own, until it is stopped.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "bell.h"
#include "channel_served.h"

namespace thoth {

// `run` has one caller; everything else may be called from any thread meanwhile.
class ChannelServer {
 public:
  // For so long as `spin` after its last work it looks for more before it sleeps, as long as work
  // comes that soon: where it does not, looking takes a processor from those it waits for.
  ChannelServer(Threads& threads, std::chrono::microseconds spin);

  // The bells stay the caller's; the keys and values outlive the channel. Throws as ServedChannel
  // does, and std::system_error.
  int add(std::shared_ptr<ChannelMemory> memory, int work_bell, int answer_bell,
          std::vector<KvCache> layers);
  // After it neither the channel nor its keys and values are read or written any more.
  void remove(int number);

  void run();
  // For good, whether it runs already or not.
  void stop();

  const ServerCounts& counts() const { return counts_; }

 private:
  bool serve_all();
  void sleep();
  bool lie_down();
  void get_up();
  void watch(int operation, int fd, std::uint32_t events);

  class Turn;

  Threads& threads_;
  const std::chrono::microseconds spin_;
  ServerCounts counts_;
  const Descriptor epoll_;
  const Bell control_;  // rung whenever something else changed than a channel's lanes
  std::atomic<bool> stop_{false};

  // Whoever wants the channels says so, for `run` would have the mutex again before they wake.
  std::atomic<int> num_wanting_{0};
  std::mutex mutex_;
  std::map<int, ServedChannel> channels_;
  int next_number_ = 0;
};

}  // namespace thoth

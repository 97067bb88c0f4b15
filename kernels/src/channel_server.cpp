#include "channel_server.h"

#include <sys/epoll.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace thoth {

// The channels, taken from `run` between two of its passes.
class ChannelServer::Turn {
 public:
  explicit Turn(ChannelServer& server) : server_(server) {
    server_.num_wanting_.fetch_add(1);
    server_.control_.ring();
    server_.mutex_.lock();
    server_.num_wanting_.fetch_sub(1);
  }
  ~Turn() { server_.mutex_.unlock(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  ChannelServer& server_;
};

ChannelServer::ChannelServer(Threads& threads, std::chrono::microseconds spin)
    : threads_(threads), spin_(spin), epoll_(epoll_create1(EPOLL_CLOEXEC), "epoll_create1") {
  watch(EPOLL_CTL_ADD, control_.fd(), EPOLLIN);
}

int ChannelServer::add(std::shared_ptr<ChannelMemory> memory, int work_bell, int answer_bell,
                       std::vector<KvCache> layers) {
  ServedChannel channel(std::move(memory),
                        Bell(Descriptor::copy_of(work_bell, "the channel's bell for work")),
                        Bell(Descriptor::copy_of(answer_bell, "the channel's bell for answers")),
                        std::move(layers));
  const Turn turn(*this);
  // On its edge: then nobody has to read it, who could be made to wait by whoever else holds it.
  watch(EPOLL_CTL_ADD, channel.work_bell(), EPOLLIN | EPOLLET);
  channels_.emplace(next_number_, std::move(channel));
  return next_number_++;
}

void ChannelServer::remove(int number) {
  const Turn turn(*this);
  const auto found = channels_.find(number);
  if (found == channels_.end()) {
    throw std::invalid_argument("there is no channel " + std::to_string(number));
  }
  watch(EPOLL_CTL_DEL, found->second.work_bell(), 0);
  channels_.erase(found);
}

void ChannelServer::run() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_work{};
  bool is_dense = false;
  while (!stop_.load()) {
    while (num_wanting_.load() > 0) std::this_thread::yield();
    const Clock::time_point now = Clock::now();
    if (serve_all()) {
      is_dense = now - last_work < spin_;
      last_work = Clock::now();
    } else if (is_dense && now - last_work < spin_) {
      std::this_thread::yield();  // a client may be waiting for this very processor
    } else {
      sleep();
    }
  }
}

void ChannelServer::stop() {
  stop_.store(true);
  control_.ring();
}

bool ChannelServer::serve_all() {
  const std::lock_guard lock(mutex_);
  bool has_served = false;
  for (auto& [number, channel] : channels_) has_served |= channel.serve(threads_, counts_);
  return has_served;
}

// The control bell stays rung until it is read here: a ring between the two locks ends the wait.
void ChannelServer::sleep() {
  if (lie_down()) {
    epoll_event events[8];
    epoll_wait(epoll_.get(), events, 8, -1);
    control_.quieten();
  }
  get_up();
}

// Whether there is nothing to do, as seen after everybody was told to ring.
bool ChannelServer::lie_down() {
  const std::lock_guard lock(mutex_);
  for (auto& [number, channel] : channels_) channel.say_asleep(true);
  for (auto& [number, channel] : channels_) {
    if (channel.has_work()) return false;
  }
  return !stop_.load();
}

void ChannelServer::get_up() {
  const std::lock_guard lock(mutex_);
  for (auto& [number, channel] : channels_) channel.say_asleep(false);
}

void ChannelServer::watch(int operation, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), operation, fd, &event) != 0) fail("a channel's bell");
}

}  // namespace thoth

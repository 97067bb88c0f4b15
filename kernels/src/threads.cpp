#include "threads.h"

#include <chrono>

#include "relax.h"

namespace thoth {
namespace {

// How long a worker looks for the next part before it sleeps: a few times what lies between two
// parts of one step, and far less than what waking it costs everybody else.
constexpr auto kSpin = std::chrono::microseconds(30);
constexpr int kLooksPerClock = 32;

}  // namespace

Threads::Threads(int count) : count_(count < 1 ? 1 : count) {
  workers_.reserve(static_cast<std::size_t>(count_ - 1));
  for (int thread = 1; thread < count_; ++thread) {
    workers_.emplace_back([this, thread] { work(thread); });
  }
}

Threads::~Threads() {
  {
    const std::lock_guard lock(mutex_);
    stop_.store(true);
    part_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Threads::dispatch(int num_tasks, Call call, void* context) {
  if (count_ == 1 || num_tasks <= 1) {
    for (int task = 0; task < num_tasks; ++task) call(context, task, 0);
    return;
  }
  call_ = call;
  context_ = context;
  num_tasks_ = num_tasks;
  next_task_.store(0, std::memory_order_relaxed);
  busy_.store(count_ - 1, std::memory_order_relaxed);
  part_.fetch_add(1);
  // A worker counts itself asleep before it looks at `part_` for the last time, both in one total
  // order: either it sees the new part or it is seen here.
  if (sleeping_.load() > 0) {
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  take_tasks(0);
  for (int looks = 0; busy_.load(std::memory_order_acquire) > 0; ++looks) {
    if (looks < 4096) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void Threads::take_tasks(int thread) {
  for (;;) {
    const int task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= num_tasks_) return;
    call_(context_, task, thread);
  }
}

void Threads::work(int thread) {
  std::uint64_t seen = 0;
  while (wait_for(seen)) {
    ++seen;
    take_tasks(thread);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

// Until `part_` is past `seen`; false when it is time to end.
bool Threads::wait_for(std::uint64_t seen) {
  const auto until = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int look = 0; look < kLooksPerClock; ++look) {
      if (part_.load(std::memory_order_acquire) != seen) return !stop_.load();
      relax();
    }
  } while (std::chrono::steady_clock::now() < until);
  std::unique_lock lock(mutex_);
  sleeping_.fetch_add(1);
  wake_.wait(lock, [&] { return part_.load() != seen; });
  sleeping_.fetch_sub(1);
  return !stop_.load();
}

}  // namespace thoth

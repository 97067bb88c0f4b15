// Threads of our own: started once, asleep between steps, woken for each parallel part.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace thoth {

// A fixed set of threads, the caller's among them. One caller at a time.
//
// Between parts a worker spins for a moment and then sleeps: layers follow each other within
// microseconds, and a thread that spins longer takes the core from whoever else shares it.
class Threads {
 public:
  // `count` includes the calling thread; at least 1.
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return count_; }

  // Calls body(task, thread) once for each task in [0, num_tasks), in any order on any thread, and
  // returns when all are done. `body` must not throw.
  template <typename Body>
  void run(int num_tasks, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    dispatch(num_tasks, [](void* context, int task, int thread) {
      (*static_cast<Plain*>(context))(task, thread);
    }, const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

 private:
  using Call = void (*)(void* context, int task, int thread);

  void dispatch(int num_tasks, Call call, void* context);
  void work(int thread);
  void take_tasks(int thread);
  bool wait_for(std::uint64_t seen);

  const int count_;
  std::vector<std::thread> workers_;

  // What runs now. Written by the caller before `part_` is raised, read by workers after.
  Call call_ = nullptr;
  void* context_ = nullptr;
  int num_tasks_ = 0;
  std::atomic<int> next_task_{0};

  alignas(64) std::atomic<std::uint64_t> part_{0};
  alignas(64) std::atomic<int> busy_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace thoth

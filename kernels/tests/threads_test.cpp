#include "threads.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"

using thoth::Threads;

CASE(every_task_runs_exactly_once) {
  for (int count : {1, 2, 3, 8}) {
    Threads threads(count);
    for (int num_tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(num_tasks));
      threads.run(num_tasks, [&](int task, int thread) {
        CHECK(thread >= 0 && thread < count);
        runs[static_cast<std::size_t>(task)].fetch_add(1);
      });
      for (const auto& run : runs) CHECK(run.load() == 1);
    }
  }
}

CASE(what_a_part_wrote_is_seen_after_it) {
  Threads threads(4);
  std::vector<long> sums(64, 0);
  for (int part = 0; part < 20000; ++part) {
    threads.run(64, [&](int task, int) { sums[static_cast<std::size_t>(task)] += task; });
  }
  for (long task = 0; task < 64; ++task) CHECK(sums[static_cast<std::size_t>(task)] == 20000 * task);
}

CASE(sleepers_are_woken) {
  Threads threads(3);
  for (int part = 0; part < 50; ++part) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<int> done{0};
    threads.run(9, [&](int, int) { done.fetch_add(1); });
    CHECK(done.load() == 9);
  }
}

CASE(threads_end_with_their_owner) {
  for (int i = 0; i < 200; ++i) Threads threads(3);
}

// An eventfd: who sleeps is woken by it.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>

#include <cstdint>
#include <utility>

#include "descriptor.h"

namespace thoth {

class Bell {
 public:
  Bell() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd") {}
  explicit Bell(Descriptor fd) : fd_(std::move(fd)) {}

  int fd() const { return fd_.get(); }

  // Looks first: whoever else holds the eventfd may have filled it, and made it one that blocks.
  void ring() const {
    pollfd ready{fd(), POLLOUT, 0};
    const std::uint64_t one = 1;
    if (poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT) != 0) {
      [[maybe_unused]] const auto written = write(fd(), &one, sizeof one);
    }
  }

  void quieten() const {
    pollfd ready{fd(), POLLIN, 0};
    std::uint64_t rings = 0;
    if (poll(&ready, 1, 0) == 1 && (ready.revents & POLLIN) != 0) {
      [[maybe_unused]] const auto had = read(fd(), &rings, sizeof rings);
    }
  }

 private:
  Descriptor fd_;
};

}  // namespace thoth

// A descriptor that is closed with its owner, and the error that the system gave.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace thoth {

[[noreturn]] inline void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

class Descriptor {
 public:
  Descriptor() = default;
  // Takes `fd` over; throws std::system_error, saying what it was for, when there is none.
  Descriptor(int fd, const char* what) : fd_(fd) {
    if (fd < 0) fail(what);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }

  // Another descriptor of what `fd` describes, which stays the caller's.
  static Descriptor copy_of(int fd, const char* what) {
    return {fcntl(fd, F_DUPFD_CLOEXEC, 0), what};
  }

  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

}  // namespace thoth

#include "channel_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace thoth {
namespace {

constexpr std::uint32_t kFormat = 2;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kFlagsAt = 2 * kLine;
static_assert(sizeof(ChannelHeader) <= kFlagsAt && kFlagsAt + sizeof(ChannelFlags) <= kPage);

// So small that no product of them overflows.
constexpr std::int32_t kMaxLanes = 64;
constexpr std::int32_t kMaxHeads = 1 << 10;
constexpr std::int32_t kMaxRows = 1 << 20;
constexpr std::int32_t kMaxNumbers = 1 << 24;
constexpr std::int64_t kMaxFloats = std::int64_t{1} << 28;  // of q, and of o

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

void check(const char* name, std::int32_t size, std::int32_t most) {
  if (size < 1 || size > most) {
    refuse(std::string(name) + " is " + std::to_string(size) + ", not in [1, " +
           std::to_string(most) + "]");
  }
}

void check(const ChannelSizes& sizes) {
  check("lanes", sizes.lanes, kMaxLanes);
  check("heads", sizes.heads, kMaxHeads);
  check("head_dim", sizes.head_dim, kMaxHeads);
  check("max_queries", sizes.max_queries, kMaxRows);
  check("max_parts", sizes.max_parts, kMaxRows);
  check("plan_numbers", sizes.plan_numbers, kMaxNumbers);
  const std::int64_t row = std::int64_t{sizes.heads} * sizes.head_dim;
  const std::int64_t floats = row * std::max(sizes.max_queries, sizes.max_parts);
  if (floats > kMaxFloats) {
    refuse("a lane has " + std::to_string(floats) + " floats, more than " +
           std::to_string(kMaxFloats));
  }
}

// Where a lane's areas begin, in bytes from its own beginning.
struct LaneLayout {
  std::size_t answer = sizeof(LaneRequest);
  std::size_t numbers = answer + sizeof(LaneAnswer);
  std::size_t q, o, lse, end;

  explicit LaneLayout(const ChannelSizes& sizes) {
    const auto heads = static_cast<std::size_t>(sizes.heads) * sizeof(float);
    const std::size_t row = heads * static_cast<std::size_t>(sizes.head_dim);
    q = up(numbers + static_cast<std::size_t>(sizes.plan_numbers) * sizeof(std::int32_t), kLine);
    o = up(q + static_cast<std::size_t>(sizes.max_queries) * row, kLine);
    lse = up(o + static_cast<std::size_t>(sizes.max_parts) * row, kLine);
    end = up(lse + static_cast<std::size_t>(sizes.max_parts) * heads, kPage);
  }

  static std::size_t up(std::size_t size, std::size_t to) { return (size + to - 1) / to * to; }
};

std::size_t bytes_of(const ChannelSizes& sizes) {
  return kPage + static_cast<std::size_t>(sizes.lanes) * LaneLayout(sizes).end;
}

ChannelHeader header_of(const ChannelSizes& sizes) {
  return {{'T', 'H', 'O', 'T', 'H', 'c', 'h', 'n'}, kFormat, sizes, bytes_of(sizes)};
}

char* mapped(int fd, std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) fail("no room for a channel");
  return static_cast<char*>(memory);
}

}  // namespace

std::shared_ptr<ChannelMemory> ChannelMemory::create(const ChannelSizes& sizes) {
  check(sizes);
  Descriptor fd(memfd_create("thoth-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
  if (ftruncate(fd.get(), static_cast<off_t>(bytes_of(sizes))) != 0) fail("no room for a channel");
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) fail("seals");
  auto memory = std::make_shared<ChannelMemory>(std::move(fd), sizes);
  const ChannelHeader header = header_of(sizes);
  std::memcpy(memory->base_, &header, sizeof header);
  return memory;
}

std::shared_ptr<ChannelMemory> ChannelMemory::open(int fd, const ChannelSizes& sizes) {
  check(sizes);
  Descriptor copy = Descriptor::copy_of(fd, "the channel's descriptor");
  const int seals = fcntl(copy.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) refuse("the channel's memory may be cut off");
  struct stat found {};
  if (fstat(copy.get(), &found) != 0) fail("fstat of a channel");
  const ChannelHeader wanted = header_of(sizes);
  if (static_cast<std::uint64_t>(found.st_size) != wanted.bytes) {
    refuse("the channel has " + std::to_string(found.st_size) + " bytes, not " +
           std::to_string(wanted.bytes));
  }
  ChannelHeader header{};
  if (pread(copy.get(), &header, sizeof header, 0) != sizeof header || header != wanted) {
    refuse("the memory is no channel of these sizes and this format");
  }
  return std::make_shared<ChannelMemory>(std::move(copy), sizes);
}

ChannelMemory::ChannelMemory(Descriptor fd, const ChannelSizes& sizes)
    : fd_(std::move(fd)),
      sizes_(sizes),
      bytes_(bytes_of(sizes)),
      base_(mapped(fd_.get(), bytes_)) {}

ChannelMemory::~ChannelMemory() { munmap(base_, bytes_); }

ChannelFlags& ChannelMemory::flags() const {
  return *reinterpret_cast<ChannelFlags*>(base_ + kFlagsAt);
}

LaneView ChannelMemory::lane(int lane) const {
  const LaneLayout layout(sizes_);
  char* const begin = base_ + kPage + static_cast<std::size_t>(lane) * layout.end;
  return {reinterpret_cast<LaneRequest*>(begin),
          reinterpret_cast<LaneAnswer*>(begin + layout.answer),
          reinterpret_cast<std::int32_t*>(begin + layout.numbers),
          reinterpret_cast<float*>(begin + layout.q),
          reinterpret_cast<float*>(begin + layout.o),
          reinterpret_cast<float*>(begin + layout.lse)};
}

}  // namespace thoth

#include "check.h"

int main() {
  for (const auto& one : thoth::tests::cases()) {
    std::printf("%s\n", one.name);
    std::fflush(stdout);
    one.body();
  }
  std::printf("%zu passed\n", thoth::tests::cases().size());
  return 0;
}

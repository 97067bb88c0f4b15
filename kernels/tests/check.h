// The few words the test binary needs: CASE registers a function, CHECK says what failed and where.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace thoth::tests {

struct Case {
  const char* name;
  void (*body)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Register {
  Register(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

}  // namespace thoth::tests

#define CASE(name)                                            \
  static void name();                                         \
  static const thoth::tests::Register register_##name(#name, name); \
  static void name()

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                             \
    }                                                                           \
  } while (false)

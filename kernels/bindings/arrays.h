// Arguments that are arrays: checked by name before anything is read.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <string>

namespace thoth::bindings {

using Array = nanobind::ndarray<>;

template <typename Element>
constexpr const char* element_name();
template <>
constexpr const char* element_name<float>() {
  return "float32";
}
template <>
constexpr const char* element_name<std::int64_t>() {
  return "int64";
}

// Its elements. Raises ValueError unless it is contiguous, on the cpu, of that element and shape;
// -1 stands for any size.
template <typename Element>
Element* elements(const Array& array, const char* name, std::initializer_list<long> shape) {
  bool fits = array.dtype() == nanobind::dtype<Element>() &&
              array.device_type() == nanobind::device::cpu::value && array.ndim() == shape.size();
  long step = 1;
  for (std::size_t i = shape.size(); fits && i-- > 0;) {
    const long wanted = shape.begin()[i];
    const long size = static_cast<long>(array.shape(i));
    fits = (wanted < 0 || size == wanted) && (size == 1 || array.stride(i) == step);
    step *= size;
  }
  if (!fits) {
    std::string said = std::string(name) + " is contiguous " + element_name<Element>() + " [";
    for (const long* size = shape.begin(); size != shape.end(); ++size) {
      if (size != shape.begin()) said += ", ";
      said += *size < 0 ? "any" : std::to_string(*size);
    }
    throw nanobind::value_error((said + "] on the cpu").c_str());
  }
  return static_cast<Element*>(array.data());
}

}  // namespace thoth::bindings

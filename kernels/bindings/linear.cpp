#include "linear.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <string>
#include <utility>

#include "arrays.h"
#include "bindings.h"
#include "decoder.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace thoth::bindings {
namespace {

using Maybe = std::optional<Array>;

Precision precision_named(const std::string& name) {
  if (name == "float32") return Precision::float32;
  if (name == "int8") return Precision::int8;
  throw nb::value_error("precision is float32 or int8");
}

const float* floats(const Array& array, const char* name, std::initializer_list<long> shape) {
  return elements<float>(array, name, shape);
}

const float* floats(const Maybe& array, const char* name, std::initializer_list<long> shape) {
  return array ? elements<float>(*array, name, shape) : nullptr;
}

int sized(const Array& array, std::size_t axis) {
  return axis < array.ndim() ? static_cast<int>(array.shape(axis)) : -1;
}

// A layer alone.
class OneLinear {
 public:
  OneLinear(const Array& weight, const Maybe& bias, const std::string& precision, Threads& threads)
      : threads_(threads),
        linear_(floats(weight, "weight", {-1, -1}), floats(bias, "bias", {sized(weight, 0)}),
                {sized(weight, 0), sized(weight, 1), precision_named(precision)}, arena_,
                threads) {}

  void apply(const Array& x, const Array& out) {
    const int rows = sized(x, 0);
    const float* from = floats(x, "x", {-1, linear_.inputs()});
    float* to = elements<float>(out, "out", {rows, linear_.outputs()});
    const nb::gil_scoped_release unlocked;
    linear_.apply({from, linear_.inputs(), rows}, Into::fresh, {to, linear_.outputs()}, levels_,
                  threads_);
  }

  std::size_t bytes() const { return arena_.bytes(); }

 private:
  Threads& threads_;
  Arena arena_;
  Linear linear_;
  Levels levels_;
};

void check_ids(const std::int64_t* ids, int count, std::int64_t end, const char* name) {
  for (int i = 0; i < count; ++i) {
    if (ids[i] < 0 || ids[i] >= end) {
      throw nb::value_error(
          (std::string(name) + " are in [0, " + std::to_string(end) + ")").c_str());
    }
  }
}

// A step's rows and the arrays they lie in.
class Step {
 public:
  Step(Decoder& decoder, const Array& token_ids, const Array& cos, const Array& sin, Array x,
       Array q, Array k, Array v)
      : decoder_(decoder), held_{cos, sin, std::move(x), std::move(q), std::move(k), std::move(v)} {
    const DecoderShape& s = decoder.shape();
    const int count = sized(token_ids, 0);
    const std::int64_t* ids = elements<std::int64_t>(token_ids, "token_ids", {-1});
    check_ids(ids, count, s.vocab, "token_ids");
    rows_ = {count,
             floats(held_[0], "cos", {count, s.head_dim / 2}),
             floats(held_[1], "sin", {count, s.head_dim / 2}),
             elements<float>(held_[2], "x", {count, s.hidden}),
             elements<float>(held_[3], "q", {count, s.heads, s.head_dim}),
             elements<float>(held_[4], "k", {count, s.kv_heads, s.head_dim}),
             elements<float>(held_[5], "v", {count, s.kv_heads, s.head_dim})};
    const nb::gil_scoped_release unlocked;
    decoder_.embed(ids, rows_);
  }

  void project(int layer) {
    check_layer(layer);
    const nb::gil_scoped_release unlocked;
    decoder_.project(layer, rows_);
  }

  void finish(int layer, const Array& o) {
    check_layer(layer);
    const DecoderShape& s = decoder_.shape();
    const float* values = floats(o, "o", {rows_.count, s.heads, s.head_dim});
    const nb::gil_scoped_release unlocked;
    decoder_.finish(layer, rows_, values);
  }

  void logits(const Array& rows, const Array& out) {
    const int count = sized(rows, 0);
    const std::int64_t* chosen = elements<std::int64_t>(rows, "rows", {-1});
    check_ids(chosen, count, rows_.count, "rows");
    float* to = elements<float>(out, "out", {count, decoder_.shape().vocab});
    const nb::gil_scoped_release unlocked;
    decoder_.logits(rows_, chosen, count, to);
  }

 private:
  void check_layer(int layer) const {
    if (layer < 0 || layer >= decoder_.num_layers()) {
      throw nb::value_error("layer is one of those added");
    }
  }

  Decoder& decoder_;
  Array held_[6];
  StepRows rows_{};
};

void make_decoder(Decoder* place, int hidden, int inner, int heads, int kv_heads, int head_dim,
                  double epsilon, const std::string& precision, const Array& embedding,
                  const Maybe& head, const Array& norm, Threads& threads) {
  const DecoderShape shape{hidden,
                           inner,
                           heads,
                           kv_heads,
                           head_dim,
                           sized(embedding, 0),
                           static_cast<float>(epsilon),
                           precision_named(precision)};
  if (hidden < 1 || inner < 1 || kv_heads < 1 || heads < 1 || head_dim < 2 || head_dim % 2 != 0 ||
      heads % kv_heads != 0) {
    throw nb::value_error("sizes are positive, head_dim even, heads a multiple of kv_heads");
  }
  const EndWeights ends{floats(embedding, "embedding", {-1, hidden}),
                        floats(head, "head", {shape.vocab, hidden}),
                        floats(norm, "norm", {hidden})};
  const nb::gil_scoped_release unlocked;
  new (place) Decoder(shape, ends, threads);
}

void add_layer(Decoder& decoder, const Array& attention_norm, const Array& qkv,
               const Maybe& qkv_bias, const Maybe& q_norm, const Maybe& k_norm,
               const Array& output, const Array& mlp_norm, const Array& gate_up,
               const Array& down) {
  const DecoderShape& s = decoder.shape();
  const LayerWeights weights{floats(attention_norm, "attention_norm", {s.hidden}),
                             floats(qkv, "qkv", {s.qkv_width(), s.hidden}),
                             floats(qkv_bias, "qkv_bias", {s.qkv_width()}),
                             floats(q_norm, "q_norm", {s.head_dim}),
                             floats(k_norm, "k_norm", {s.head_dim}),
                             floats(output, "output", {s.hidden, s.q_width()}),
                             floats(mlp_norm, "mlp_norm", {s.hidden}),
                             floats(gate_up, "gate_up", {2L * s.inner, s.hidden}),
                             floats(down, "down", {s.hidden, s.inner})};
  const nb::gil_scoped_release unlocked;
  decoder.add_layer(weights);
}

}  // namespace

void bind_linear(nb::module_& module) {
  nb::class_<OneLinear>(module, "Linear", "A linear layer on packed weights.")
      .def(nb::init<const Array&, const Maybe&, const std::string&, Threads&>(), "weight"_a,
           "bias"_a.none(), "precision"_a, "threads"_a, nb::keep_alive<1, 5>())
      .def("apply", &OneLinear::apply, "x"_a, "out"_a)
      .def_prop_ro("num_bytes", &OneLinear::bytes);
  nb::class_<Step>(module, "Step", "The rows of one step on their way through a decoder.")
      .def("project", &Step::project, "layer"_a)
      .def("finish", &Step::finish, "layer"_a, "o"_a)
      .def("logits", &Step::logits, "rows"_a, "out"_a);
  nb::class_<Decoder>(module, "Decoder", "A decoder but for its attention.")
      .def("__init__", &make_decoder, nb::kw_only(), "hidden"_a, "inner"_a, "heads"_a,
           "kv_heads"_a, "head_dim"_a, "epsilon"_a, "precision"_a, "embedding"_a,
           "head"_a.none(), "norm"_a, "threads"_a, nb::keep_alive<1, 12>())
      .def("add_layer", &add_layer, nb::kw_only(), "attention_norm"_a, "qkv"_a,
           "qkv_bias"_a.none(), "q_norm"_a.none(), "k_norm"_a.none(), "output"_a, "mlp_norm"_a,
           "gate_up"_a, "down"_a)
      .def(
          "begin",
          [](Decoder& decoder, const Array& token_ids, const Array& cos, const Array& sin, Array x,
             Array q, Array k, Array v) {
            return new Step(decoder, token_ids, cos, sin, std::move(x), std::move(q),
                            std::move(k), std::move(v));
          },
          "token_ids"_a, "cos"_a, "sin"_a, "x"_a, "q"_a, "k"_a, "v"_a, nb::keep_alive<0, 1>(),
          nb::rv_policy::take_ownership)
      .def_prop_ro("num_bytes", &Decoder::bytes);
}

}  // namespace thoth::bindings

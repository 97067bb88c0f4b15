#include "decoder.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"

using namespace thoth;

namespace {

using Values = std::vector<float>;

constexpr int kHidden = 40, kInner = 52, kHeads = 4, kKvHeads = 2, kHeadDim = 10, kVocab = 70;
constexpr int kLayers = 2;

std::size_t sized(long count) { return static_cast<std::size_t>(count); }

Values numbers(long count, std::uint32_t seed) {
  Values values(sized(count));
  std::uint32_t state = seed * 2654435761u + 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
  }
  return values;
}

DecoderShape shape(Precision precision) {
  return {kHidden, kInner, kHeads, kKvHeads, kHeadDim, kVocab, 1e-5f, precision};
}

// A decoder of the same numbers every time, biases and head norms among them.
Decoder made(Precision precision, bool tied, Threads& threads) {
  const DecoderShape s = shape(precision);
  const Values embedding = numbers(kVocab * kHidden, 1);
  const Values head = numbers(kVocab * kHidden, 2);
  const Values norm = numbers(kHidden, 3);
  Decoder decoder(s, {embedding.data(), tied ? nullptr : head.data(), norm.data()}, threads);
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    const std::uint32_t seed = 10 + 10 * layer;
    const Values qkv = numbers(s.qkv_width() * kHidden, seed);
    const Values bias = numbers(s.qkv_width(), seed + 1);
    const Values head_norm = numbers(kHeadDim, seed + 2);
    const Values output = numbers(kHidden * s.q_width(), seed + 3);
    const Values gate_up = numbers(2 * kInner * kHidden, seed + 4);
    const Values down = numbers(kHidden * kInner, seed + 5);
    decoder.add_layer({norm.data(), qkv.data(), bias.data(), head_norm.data(), head_norm.data(),
                       output.data(), norm.data(), gate_up.data(), down.data()});
  }
  return decoder;
}

// Logits [rows, vocab] of rows first ... first + rows - 1, where attention gives q back.
Values forward(Decoder& decoder, int first, int rows) {
  const DecoderShape& s = decoder.shape();
  std::vector<std::int64_t> ids(sized(rows)), chosen(sized(rows));
  Values cos(sized(rows * kHeadDim / 2)), sin(cos);
  for (int row = 0; row < rows; ++row) {
    ids[sized(row)] = (first + row) * 7 % kVocab;
    chosen[sized(row)] = row;
    for (int i = 0; i < kHeadDim / 2; ++i) {
      cos[sized(row * kHeadDim / 2 + i)] = std::cos(static_cast<float>(first + row + i));
      sin[sized(row * kHeadDim / 2 + i)] = std::sin(static_cast<float>(first + row + i));
    }
  }
  Values x(sized(rows * kHidden)), q(sized(rows * s.q_width()));
  Values k(sized(rows * s.kv_width())), v(k);
  const StepRows step{rows, cos.data(), sin.data(), x.data(), q.data(), k.data(), v.data()};
  decoder.embed(ids.data(), step);
  for (int layer = 0; layer < decoder.num_layers(); ++layer) {
    decoder.project(layer, step);
    decoder.finish(layer, step, q.data());
  }
  Values out(sized(rows * kVocab));
  decoder.logits(step, chosen.data(), rows, out.data());
  return out;
}

}  // namespace

CASE(a_decoder_gives_the_same_bits_in_any_company_on_any_threads) {
  for (const Precision precision : {Precision::float32, Precision::int8}) {
    for (const bool tied : {true, false}) {
      Threads one(1);
      Decoder alone = made(precision, tied, one);
      const Values together = forward(alone, 0, 120);
      for (const float value : together) CHECK(std::isfinite(value));
      for (const int count : {1, 2, 3}) {
        Threads threads(count);
        Decoder decoder = made(precision, tied, threads);
        CHECK(decoder.bytes() == alone.bytes());
        for (const int rows : {1, 2, 5, 9, 30}) {
          for (const int first : {0, 51, 120 - rows}) {
            const Values apart = forward(decoder, first, rows);
            CHECK(std::memcmp(apart.data(), &together[sized(first * kVocab)],
                              apart.size() * sizeof(float)) == 0);
          }
        }
      }
    }
  }
}

CASE(a_tied_head_takes_no_room_of_its_own) {
  Threads threads(1);
  const std::size_t tied = made(Precision::int8, true, threads).bytes();
  CHECK(made(Precision::int8, false, threads).bytes() >= tied + kVocab * kHidden);
}

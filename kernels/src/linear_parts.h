// The functions behind the table of LinearKernels, in the namespace of one instruction set.
#pragma once

#include "linear_kernels.h"

namespace thoth::THOTH_ISA {

void multiply_float(FloatRows x, int rows, const float* panel, int inputs, float* tile);
void multiply_int8(LevelRows x, int rows, const std::int8_t* panel, const float* scales, int pairs,
                   float* tile);

void store(const float* tile, int rows, int columns, const float* bias, float* out, long stride);
void store_sum(const float* tile, int rows, int columns, const float* bias, float* out,
               long stride);
void store_gated(const float* tile, int rows, int columns, const float* bias, float* out,
                 long stride);

void quantise(const float* x, int inputs, int limit, std::int16_t* levels, float* scale);
void rms_norm(const float* x, const float* weight, int width, float epsilon, float* out);
void rotate(const float* x, const float* cos, const float* sin, int half, float* out);

}  // namespace thoth::THOTH_ISA

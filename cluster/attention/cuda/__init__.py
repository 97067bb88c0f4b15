"""Attention on CUDA devices: Triton kernels, and flash-attn where it is installed."""

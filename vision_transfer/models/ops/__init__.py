"""CPU kernels: Winograd convolution with its gradient, pooling, im2col, micro-batches. GPUs and TPUs use XLA's."""

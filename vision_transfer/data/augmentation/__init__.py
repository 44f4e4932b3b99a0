"""Augmentation on the device: one batched affine warp and colour jitter, drawn per example."""

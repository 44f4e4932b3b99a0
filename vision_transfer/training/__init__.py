"""Training: stages of jitted steps on what a mask leaves trainable."""

"""The process and its surroundings: JAX set-up, devices, console, files and locks, signals, memory, provenance."""

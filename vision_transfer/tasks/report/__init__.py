"""The pages of `--mode=report`, and the figures in a run's folder."""

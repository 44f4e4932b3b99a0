"""The task `train`: from a config to a finished run folder, stage by stage."""

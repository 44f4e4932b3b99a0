"""From a config and data to a run: its folder, identity, inputs and result; and loading a finished one."""

"""Everything with a name on the command line: a folder for each task or mode. Only `cli` imports it."""

"""The command line: flags, help, modes, and messages about flags. Nothing heavy is imported with it."""

"""Reading a run folder: its curves, its figures, its report."""

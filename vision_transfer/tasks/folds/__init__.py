"""Cross-validation: a run for each fold, their predictions together, and a final run on the images of all folds."""

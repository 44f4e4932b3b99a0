"""A file for each source of images: folders, CSV, IDX, npz, archives, TensorFlow Datasets, the embedded digits."""

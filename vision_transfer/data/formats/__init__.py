"""Sources of images: folders, CSV, IDX, npz, archives, TensorFlow Datasets, the embedded digits."""

"""Sources of images: folders, CSV, IDX, npz, TensorFlow Datasets, the embedded digits."""

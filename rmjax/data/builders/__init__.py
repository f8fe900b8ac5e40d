"""TFDS builders: array_record files, read and written without TensorFlow."""

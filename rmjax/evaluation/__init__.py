"""Per-example values to figures with intervals; no training, no files."""

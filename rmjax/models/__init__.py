"""Model definitions in linen: one Config, one Block, and tables of names, presets and shardings."""

"""Rewards that are functions of text: texts in, float32 [N] out."""

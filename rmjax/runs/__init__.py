"""Whole runs as functions of a config and a folder."""

"""Launchers: flags in, a run of rmjax.runs out."""

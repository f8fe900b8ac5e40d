"""Texts of four domains with 15 to 20 and more individual human ratings each (Hutto & Gilbert 2014)."""

from rmjax.data.builders.human_ratings.human_ratings import DOMAINS, load

__all__ = ["DOMAINS", "load"]

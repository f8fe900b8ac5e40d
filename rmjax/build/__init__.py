"""A config's lines to objects: the one room that knows every part."""

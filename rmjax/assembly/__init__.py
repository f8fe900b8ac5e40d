"""From a config's lines to data, model, objective and step: the room that knows every part."""

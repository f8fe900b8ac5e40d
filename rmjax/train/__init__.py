"""One step, one loop: state, optimizer, objective, parallel layouts, checkpoints. Functions come in; no model does."""

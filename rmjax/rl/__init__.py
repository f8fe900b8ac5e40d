"""A rollout from prompt to packed batch: samples, rewards, advantages, and how a policy is evaluated."""

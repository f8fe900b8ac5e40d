"""From rewards to weights and advantages: whole-batch work before the step, never differentiated.

baselines: rewards of whole completions -> advantages. returns: rewards of tokens and values -> advantages and targets.
divergence: how far from the reference, and what that costs. weights: rewards -> how much each text's likelihood counts.
"""

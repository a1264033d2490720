"""The training loop, for robots and images alike: plain Python, no configuration framework."""

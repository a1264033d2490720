"""The shortcut core: objectives and samplers for tensors of any shape (B, *S). Imports torch and einops only."""

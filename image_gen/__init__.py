"""Image generators on the same shortcut core as the robot policies (the DiT pipeline of arXiv 2410.12557)."""

"""Demonstrations: on-disk formats, episodes in RAM, windows over them, reports and downloads."""

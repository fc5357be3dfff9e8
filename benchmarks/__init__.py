"""Measurements of speed and memory, each beside the alternative."""

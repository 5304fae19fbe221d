"""Estimates with their intervals, and differences between them."""

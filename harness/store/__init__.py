"""Artifacts on disk: cells, records, data sets."""

"""A benchmark and evaluation harness for the bias of training data."""

__version__ = "0.1.0"

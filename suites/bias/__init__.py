"""Bias suites as libraries: texture (cue-conflict), context (FOCUS) and background (ImageNet-9)."""

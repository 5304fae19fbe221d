"""Stable Diffusion loading, sampling and encoding shared by generators (import the sub-modules; this one is empty)."""

"""Measurements made by hand; a package, because pyarrow 17 installs another one of this name."""

"""A generator and a suite from outside the project."""

"""Cells are run here: sessions, workers, and the work behind each kind of cell."""

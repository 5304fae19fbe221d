"""Data sets that others made and published: listed where they are, checked, never copied."""

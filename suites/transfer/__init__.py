"""Linear probes and few-shot probes as a library: readers, splits, transforms, features, solver, search."""

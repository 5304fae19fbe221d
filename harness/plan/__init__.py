"""From a selection to the cells of a run."""

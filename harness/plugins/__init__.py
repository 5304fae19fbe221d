"""The contract between the engine and its plugins, and how they are found."""

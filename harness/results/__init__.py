"""What is read back from a store: rescored records, leaderboards."""

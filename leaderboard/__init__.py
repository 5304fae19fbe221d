"""The leaderboard: from records to tables."""

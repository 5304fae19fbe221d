"""Results and datasets in the formats of others: each module writes one of them, and says what it cannot hold."""

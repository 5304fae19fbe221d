"""Images on disk: tar shards, and the uint8 training copy made from them."""

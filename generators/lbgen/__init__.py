"""lbGen: the published fine-tune and its synthesis."""

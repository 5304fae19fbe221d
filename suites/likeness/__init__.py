"""What images say of themselves beside real ones: samples, encoders, neighbours, duplicates, and where they come from."""

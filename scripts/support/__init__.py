"""What the benchmarks and checks in this folder share."""

"""What tests share beside fixtures, with each other and with the benchmarks."""

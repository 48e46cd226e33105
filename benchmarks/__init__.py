"""Speed, measured in pairs in one run: ``python -m benchmarks`` writes docs/reference/benchmarks.md."""

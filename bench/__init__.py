"""The workload, the demo that finds the attacks in it, and the benchmarks: whatever measures the engine from outside."""

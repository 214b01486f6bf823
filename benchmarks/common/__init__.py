"""What several benchmarks share: options, results, timing, processes, inputs, profiles, and the baselines."""

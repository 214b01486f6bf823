"""What several benchmarks share: timing, processes, profiles, programs as text, and the baselines."""

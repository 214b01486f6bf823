"""Where a step runs: meshes, processes, kernels, memory and cost."""

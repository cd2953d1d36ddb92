"""Methods on arrays of the host: from requests to calls of the CPU's kernels."""

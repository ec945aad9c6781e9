"""Life cycles, retries, supervision, signals and batched calls."""

"""Export files: ended tasks and dead letters of a store as lines of JSON."""

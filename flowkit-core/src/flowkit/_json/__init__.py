"""JSON: limits, accepted Python values, and documents that users write."""

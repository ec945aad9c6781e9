"""Dead letters: work that was given up, kept so that users can retry it."""

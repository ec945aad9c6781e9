"""Texts for people: redaction, log lines and names."""

"""Registered under the entry-point group ``flowkit``."""

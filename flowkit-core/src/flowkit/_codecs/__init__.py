"""Codecs of plugins and signatures, between the engine and the adapters."""

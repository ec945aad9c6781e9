"""Real servers for the tests, started here and stopped with them."""

"""Code of users and plugins: contained, run in threads, with its own context variables."""

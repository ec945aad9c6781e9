"""Code of users and plugins: containment, threads and context variables."""

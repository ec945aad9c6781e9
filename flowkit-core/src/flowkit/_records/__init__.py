"""Records: how tasks are laid out in a store, and the queries that read them."""

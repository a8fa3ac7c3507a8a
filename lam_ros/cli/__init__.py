"""`lam …`: thin commands over the core and the nodes."""

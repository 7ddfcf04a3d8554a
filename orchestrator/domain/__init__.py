"""The pure core: what a saga is, what happened to it, and what comes next."""

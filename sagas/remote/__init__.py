"""A saga whose payments are another service's business: the saga, and that service."""

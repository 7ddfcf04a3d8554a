"""Orders to try the sagas with, and the catalogue that they were made for."""

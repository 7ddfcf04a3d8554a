"""The ports on Postgres 15 and newer."""

"""The services that the ready sagas call: small, real, each over its own tables in Postgres."""

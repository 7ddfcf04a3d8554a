"""Every port of the store in memory: the fake that passes the same contract as Postgres."""

from orchestrator.adapters.memory.store import MemoryDatabase, MemoryStore, open_store

__all__ = ["MemoryDatabase", "MemoryStore", "open_store"]

"""The plugin's fixture, also where the package was installed before it had one."""

from orchestrator.testing.plugin import sim

__all__ = ["sim"]

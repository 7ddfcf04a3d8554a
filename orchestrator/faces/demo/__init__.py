"""The command `saga demo`."""

from orchestrator.faces.demo.command import demo

__all__ = ["demo"]

"""For services beside the sagas: what carries out their commands."""

from orchestrator.messaging.participant import CommandContext, Participant

__all__ = ["CommandContext", "Participant"]

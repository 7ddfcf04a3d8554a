"""Faces translate, never decide: they call the service and show what it answers."""

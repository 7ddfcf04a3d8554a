"""Loan approval for tests that cannot wait: nobody sleeps on anything."""

from __future__ import annotations

from datetime import timedelta

from sagas.loan_approval import loan_approval
from sagas.resources import resources

__all__ = ["SAGAS", "resources"]

SAGAS = (loan_approval(cooling_off=timedelta(milliseconds=100)),)

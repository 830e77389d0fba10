"""Budgets: holds, alerts, refusals and their SQL."""

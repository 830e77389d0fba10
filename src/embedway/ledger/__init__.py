"""The usage ledger: records written in groups, roll-ups, reports and retention, with their SQL."""

"""Manages projects, keys, end users and the audit log, for the admin API and the command line."""

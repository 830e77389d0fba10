"""Calls models elsewhere: a row of data per kind of provider, and a pure adapter per protocol."""

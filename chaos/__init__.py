"""Breaks things around the gateway and checks that it keeps its promises."""

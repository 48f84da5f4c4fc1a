"""Measuring what a change to heads did."""

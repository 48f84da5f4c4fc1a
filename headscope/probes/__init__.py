"""Probes: one file each; being here registers them."""

from headscope.probes.base import Probe, Reading

__all__ = ["Probe", "Reading"]

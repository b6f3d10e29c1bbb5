"""Procedural adult trunks: label maps from rules and random parameters, without any patient's data."""

from .case import procedural_case, procedural_cases

__all__ = ["procedural_case", "procedural_cases"]

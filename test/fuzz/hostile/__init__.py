"""Hostile bytes for every decoder of the package: seeds, mutation, the rules no decoder may break, and the campaign."""

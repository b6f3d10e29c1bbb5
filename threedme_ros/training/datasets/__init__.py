"""Readers of public data sets, a module for each layout on disk. They list cases; no voxel is read here but of npz."""

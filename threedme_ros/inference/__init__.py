"""From a volume to its labels: preprocess, windows, engines, and the way back to the input grid."""

"""`threedme benchmark`: how fast each part is on this machine, against networks that are usual, in one run."""

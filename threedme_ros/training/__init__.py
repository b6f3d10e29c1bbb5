"""Training and evaluation of 3DME: data, synthesis, loss, metrics, and the loop that makes a checkpoint."""

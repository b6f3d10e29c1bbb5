"""Pictures of a segmented volume: the overlay topic, the demo's figures and its report."""

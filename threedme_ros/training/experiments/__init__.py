"""Experiments small enough for two CPU cores: `threedme experiment`. A negative result is a result."""

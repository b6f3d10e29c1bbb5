"""Volume file formats as bytes. They arrive over a network: each header is judged before memory is taken."""

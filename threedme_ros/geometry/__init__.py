"""Labels to geometry: meshes, clouds and safety margins, in metres, RAS+, in the patient frame."""

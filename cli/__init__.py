"""`holdfast`: a client of the REST API, and the commands that run on this machine alone."""

"""A local page to look inside a generator: what it asks for, and the server that answers."""

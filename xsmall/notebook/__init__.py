"""What a notebook shows: what an object is, what can be done with it, and tools for the mouse."""

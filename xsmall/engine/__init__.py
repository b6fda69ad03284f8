"""The lazy layer: records, the engine that walks blocks of events, plans from a memory budget."""

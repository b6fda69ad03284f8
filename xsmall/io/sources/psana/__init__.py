"""LCLS-II runs through psana: what only psana can make of an event, such as its own calibrated frames."""

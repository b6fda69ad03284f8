"""Tools for the mouse: look at frames, draw regions and masks, click on rings; what was drawn is a value."""

"""Which pixels to use: reasons from the layout of a detector, and regions drawn in space."""

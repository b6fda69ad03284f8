"""Common modes: what they are, the numbers they are known by, and the steps that correct them."""

"""What is about shots and needs no frame: joining by the labels of events."""

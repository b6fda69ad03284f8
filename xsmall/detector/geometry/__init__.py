"""Where pixels are: panels and their poses, the way between memory and space, and other programs' formats."""

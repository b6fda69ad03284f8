"""The reductions: records, one file each."""

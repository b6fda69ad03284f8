"""The only code that opens files: sources and stores."""

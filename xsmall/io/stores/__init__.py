"""What results and runs are written to."""

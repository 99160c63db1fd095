"""What every other folder may use, and nothing that needs torch: errors, records, run directory, preprocessing."""

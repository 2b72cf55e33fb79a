"""What every room needs: errors, files, randomness, precision, and patches of libraries."""

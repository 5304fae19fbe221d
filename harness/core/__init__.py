"""What every room needs: errors, names, files, identities, hashes, class lists."""

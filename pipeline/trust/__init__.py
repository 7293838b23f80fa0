"""Who is trusted, and whether what came from elsewhere is theirs: signatures, sums, memory."""

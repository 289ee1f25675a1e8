"""What an open backend does: takes hints, claims, renews, settles and reconciles."""

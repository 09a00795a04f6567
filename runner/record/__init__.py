"""What a run leaves on disk: events, the journal that holds them, the names of its files."""

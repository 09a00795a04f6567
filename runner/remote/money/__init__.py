"""What a run at a remote engine takes and has taken: tokens by meter, dollars, and where it stops."""

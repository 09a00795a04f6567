"""Files into rows: where they are, which shape they have, and what is wrong with a row."""

"""What callers pass: checked, and as requests that travel."""

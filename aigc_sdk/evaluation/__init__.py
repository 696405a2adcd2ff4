"""Stage 4: how good generated contents are."""

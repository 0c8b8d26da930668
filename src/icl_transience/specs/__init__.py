"""Values and identities: what is to be made. Standard library only."""

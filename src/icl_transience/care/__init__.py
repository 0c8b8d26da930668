"""What is there, what is left over, how it was made, and all of it in one file: care of a results folder."""

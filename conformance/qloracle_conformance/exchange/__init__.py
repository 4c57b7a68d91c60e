"""The text that cases, answers and vectors are written in: lines of tokens that need no library to read."""

"""The server: admits updates, folds them into the model and writes the commit chain."""

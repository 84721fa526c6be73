"""Pure: judges inputs in log order, weighs them, adds them up and moves the model."""

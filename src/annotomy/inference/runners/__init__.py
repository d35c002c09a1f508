"""Model runners: the code that feeds one kind of model."""

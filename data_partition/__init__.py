"""Who owns which rows: the data set, its subgroups and splits, and what turns a row into a model input."""

"""Which donor's backbone suits a target: one file for each scorer."""

"""What a target does with donors' backbones before it takes one: probes, swaps, a few steps of training, sketches."""

import torch

from strategies.selection.scorer import Candidate, Outputs, Target


def outputs(features=None, logits=None):
    """Outputs of given features, logits, or both; what is left out is zeros."""
    features = None if features is None else torch.as_tensor(features, dtype=torch.float32)
    logits = None if logits is None else torch.as_tensor(logits, dtype=torch.float32)
    n = len(features if features is not None else logits)
    return Outputs(torch.zeros(n, 2) if features is None else features, torch.zeros(n, 2) if logits is None else logits)


def target(labels, own=None, pairs=None, seed=0):
    labels = torch.as_tensor(labels)
    own = outputs(torch.zeros(len(labels), 2)) if own is None else own
    pairs = torch.tensor([[0, 1]]) if pairs is None else torch.as_tensor(pairs)
    return Target(labels, int(labels.max()) + 1, pairs, own, seed)


def candidate(found, partition_id=1, same_modality=True, tune=lambda: 0.5):
    return Candidate(partition_id, same_modality, found, tune)


def blobs(apart, n=60, width=8, classes=3, seed=0):
    """Noise around class means that are some way apart; labels, and outputs whose logits are noisy guesses of the label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    means = torch.randn(classes, width, generator=generator)
    features = apart * means[labels] + torch.randn(n, width, generator=generator)
    logits = apart * torch.eye(classes)[labels] + torch.randn(n, classes, generator=generator)
    return labels, Outputs(features, logits)


def rotation(width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0].float()


def random_pairs(n, number=50, seed=0):
    return torch.randint(n, (number, 2), generator=torch.Generator().manual_seed(seed))

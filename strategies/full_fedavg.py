"""The reference that shares more: FedAvg of backbone and adapter, inside each modality.

Adapters have different shapes in different modalities, so the clusters are the modalities. The head stays local: clients
differ in their classes.
"""

from __future__ import annotations

from strategies.job import Job
from strategies.shared_fedavg import SharedFedAvg


def run(job: Job) -> None:
    """Federate backbone and adapter inside each modality and evaluate on the test split."""
    clients = list(job.mailbox.clients.values())
    SharedFedAvg(job, "federated", clients, share="backbone+adapter", scope="modality").run()

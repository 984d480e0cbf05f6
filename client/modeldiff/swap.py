"""A donor's backbone as it would work on the target ("transfer KV" of Back-Pack).

B' is the donor's backbone with an adapter and a head. Inside the modality these are the donor's, where they came; across
modalities the donor's cannot read the target's inputs, and the target's own take their place. Three arms:

- swap: B' as it is. What stands across modalities was not trained together: such scores are not comparable with those inside.
- swap + calibrate: the backbone is frozen, adapter and head are trained for a little (client/modeldiff/tune.py).
- paired: inside the modality as swap. Across, the donor's model is whole and sees its own modality of the target's instances;
  see :func:`whole_model` and :func:`paired`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from client.modeldiff.outputs import outputs
from client.modeldiff.probes import Probes
from models.groups import LOCAL, Group, copy_model, group_names, group_of, named_tensors, set_tensors
from strategies.selection.scorer import Outputs

CLASSIFIER = "head.classifier"


def candidate_model(
    donor: Mapping[str, np.ndarray],
    donor_modality: str,
    target_model: nn.Module,
    target_modality: str,
) -> nn.Module:
    """Return B', which shares no tensor with the target's model but those of FROZEN.

    Args:
        donor: the donor's arrays by name: all of its backbone, and all or nothing of its adapter and of its head. A head may
            have another number of classes.
        donor_modality: ``image`` or ``text``.
        target_model: the target's own, trained; where the donor has sent nothing, as of what never travels, its tensors stay.
        target_modality: as above.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or kind, or not finite.
    """
    aside = set() if donor_modality == target_modality else {Group.ADAPTER, Group.HEAD}
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in donor.items() if group_of(name) not in aside}
    came = {Group.BACKBONE} | {group_of(name) for name in tensors}
    model = copy_model(target_model)
    resize_classifier(model, tensors)
    names = [name for name in group_names(model, *came - {Group.FROZEN}) if not LOCAL.fullmatch(name)]
    set_tensors(model, tensors, names)
    return model


def whole_model(donor: Mapping[str, np.ndarray], donor_modality: str, fresh: nn.Module, target_model: nn.Module) -> nn.Module:
    """Return a donor's model of another modality with the donor's adapter, to see inputs of the donor's modality.

    Args:
        donor: the donor's arrays by name: all of its backbone and adapter, and all or nothing of its head.
        donor_modality: ``image`` or ``text``.
        fresh: a model of that modality as initialised, with the target's classes.
        target_model: the target's own; its head stands where the donor's did not come.

    Raises:
        ValueError: as :func:`candidate_model`; or the adapter did not come.
    """
    groups = {group_of(name) for name in donor}
    if Group.ADAPTER not in groups:
        raise ValueError("its adapter did not come, without which it cannot see inputs of its own modality")
    model = copy_model(fresh)
    if Group.HEAD not in groups:
        model.head = copy.deepcopy(target_model.head)
    return candidate_model(donor, donor_modality, model, donor_modality)


def resize_classifier(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model a classifier of as many classes as that among the tensors has, if there is one.

    Raises:
        ValueError: it has another number of features, or its weight and bias disagree.
    """
    weight, bias = tensors.get(f"{CLASSIFIER}.weight"), tensors.get(f"{CLASSIFIER}.bias")
    old = model.get_submodule(CLASSIFIER)
    assert isinstance(old, nn.Linear)
    if weight is None or weight.shape == old.weight.shape:
        return
    if weight.ndim != 2 or weight.shape[1] != old.in_features or bias is None or bias.shape != weight.shape[:1]:
        found = (tuple(weight.shape), None if bias is None else tuple(bias.shape))
        raise ValueError(f"{CLASSIFIER}: found weight and bias of {found}, expected (K, {old.in_features}) and (K,)")
    like = old.weight
    new = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, like.shape[1], len(weight), device=like.device, dtype=like.dtype
    )
    model.get_submodule("head").classifier = new


def paired(
    target_model: nn.Module,
    target_inputs: Tensor,
    donor_model: nn.Module,
    donor_inputs: Tensor,
    pairs: Tensor,
    device: torch.device,
    precision: str = "float32",
) -> tuple[Outputs, Outputs]:
    """Return what the target's and the donor's model compute, each on its own modality of the same instances.

    No surgery: which instances are alike to one model is compared with which are to the other, as in representational
    similarity analysis (Kriegeskorte et al., 2008). It needs twin data: row i of both tensors is the same concept, so the
    target must have inputs of the donor's modality for concepts that it owns. Without concepts in common there is
    no such arm.

    Args:
        target_model: reads ``target_inputs``.
        target_inputs: n of them.
        donor_model: the donor's own, whole.
        donor_inputs: n of them, in the same order.
        pairs: int64 (p, 2); they are valid for both.
        device: of both models.
        precision: see :func:`client.modeldiff.outputs.outputs`.

    Raises:
        ValueError: the two have different lengths.
    """
    if len(target_inputs) != len(donor_inputs):
        raise ValueError(
            f"found {len(target_inputs)} inputs of the target and {len(donor_inputs)} of the donor: expected twins"
        )
    nothing = torch.zeros(len(target_inputs), dtype=torch.long)
    own = outputs(target_model, Probes(target_inputs, nothing, pairs), device, precision)
    return own, outputs(donor_model, Probes(donor_inputs, nothing, pairs), device, precision)


def parameters_of(model: nn.Module, *groups: Group) -> list[nn.Parameter]:
    """Return the parameters of some groups."""
    return [p for name, p in named_tensors(model).items() if isinstance(p, nn.Parameter) and group_of(name) in groups]

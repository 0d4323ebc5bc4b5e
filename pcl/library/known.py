"""What is known of a model beside its specification and weights, of its shards and its plugins."""

__all__ = ["about_model"]

from collections.abc import Mapping, Sequence
from typing import Any

from pcl.data.manifest import Manifest
from pcl.encoders.build import ModelSpec
from pcl.encoders.registry import ENCODERS
from pcl.plugins.loading import PREFIX, hashes
from pcl.problems.problem import problem
from pcl.train.model_folder import About, Side


def about_model(
    spec: ModelSpec, manifest: Manifest | None, plugins: Sequence[str], provenance: Mapping[str, Any]
) -> About:
    """Return what is known of a model.

    Args:
        spec: of it.
        manifest: of the shards that it was trained on; None: not known, and neither are forms and labels.
        plugins: files that were loaded in this process.
        provenance: where the model is from.
    """
    modules = [ENCODERS[encoder["kind"]].build.__module__ for encoder in (spec["encoder_u"], spec["encoder_v"])]
    needed = {module.removeprefix(PREFIX) for module in modules if module.startswith(PREFIX)}
    used = {name: sha256 for name, sha256 in hashes(plugins).items() if name in needed}
    if manifest is None:
        return About(plugins=used, provenance=dict(provenance))
    forms = problem(manifest.source["name"]).forms(manifest)
    sides = [
        Side(form, list(manifest.statistics[name].get("counts", ()))) for name, form in zip("uv", forms, strict=True)
    ]
    return About(sides[0], sides[1], used, dict(provenance))

"""Every planner equals its original: same weights, same inputs, same outputs, losses and gradients."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor

import beyonddrive
from beyonddrive.backbones.transfuser import FusedFeatures
from beyonddrive.heads.flow import FlowHead
from beyonddrive.losses.agents import CAMERA_FIELD_OF_VIEW, agent_losses, match_agents, visible
from beyonddrive.losses.flow import FlowDraws
from beyonddrive.plugins.checkpoint import KeyMap
from beyonddrive.plugins.ego_mlp.checkpoint import KEYS as EGO_MLP_KEYS
from beyonddrive.plugins.flow_policy.checkpoint import KEYS as FLOW_POLICY_KEYS
from beyonddrive.plugins.planner import HeadPlanner
from beyonddrive.plugins.transfuser.checkpoint import ABSOLUTE_KEYS, DELTA_KEYS
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput, SceneTokens

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "models"
MODEL_CONFIGS = Path(beyonddrive.__file__).parent / "configs" / "_base_" / "models"
TOLERANCE = 2e-5

spec = importlib.util.spec_from_file_location("golden_recipe", GOLDEN / "recipe.py")
assert spec is not None and spec.loader is not None
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)


@cache
def recipe_weight(key: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    return torch.from_numpy(np.array(recipe.weight(key, shape, dtype)))


def official_state(name: str) -> dict[str, Tensor]:
    keys = json.loads((GOLDEN / f"{name}.keys.json").read_text())["keys"]
    return {key: recipe_weight(key, tuple(shape), dtype) for key, (shape, dtype) in keys.items()}


class Golden:
    """Golden arrays of one planner, and the worst difference met so far."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.name = name
        self.seen: set[str] = set()
        self.worst = (0.0, "")

    def check(self, values: Mapping[str, Any], prefix: str = "") -> None:
        for name, value in values.items():
            self.check_one(prefix + name, value.detach() if isinstance(value, Tensor) else value)

    def check_one(self, name: str, value: Any) -> None:
        value = np.asarray(value)
        kind = next(k for k in ("out/", "probe/", "loss/", "grad/") if k + name in self.arrays)
        expected = self.arrays[kind + name]
        self.seen.add(kind + name)
        if kind == "probe/":
            assert value.shape == tuple(self.arrays["shape/" + name]), name
            value, stat = recipe.probe(value, expected.size)
            golden_stat = self.arrays["stat/" + name]
            np.testing.assert_allclose(stat, golden_stat, rtol=1e-4, atol=1e-4, err_msg=name)
        assert value.shape == expected.shape, name
        difference = float(np.abs(value.astype(np.float64) - expected).max() / (1 + np.abs(expected).max()))
        self.worst = max(self.worst, (difference, name))
        assert difference <= TOLERANCE, f"{self.name}: {name} differs by {difference:.2e} relative"

    def finish(self) -> None:
        """All golden outputs, losses and gradients have been compared."""
        wanted = {key for key in self.arrays if key.startswith(("out/", "probe/", "loss/", "grad/"))}
        assert wanted == self.seen
        print(f"\n{self.name}: {len(self.seen)} arrays, worst {self.worst[0]:.1e} ({self.worst[1]})")


def build(config: str, keys: KeyMap, name: str, **changes: Any) -> HeadPlanner:
    cfg = Config.fromfile(MODEL_CONFIGS / config)
    cfg.merge_from_dict({f"model.{key.replace('__', '.')}": value for key, value in changes.items()})
    with torch.device("meta"):  # no time for initial weights that are replaced at once
        planner = MODELS.build(cfg.model)
    state = keys.native_state(official_state(name))
    planner.load_state_dict(state, assign=True)
    assert (
        sum(p.numel() for p in planner.parameters())
        == json.loads((GOLDEN / f"{name}.meta.json").read_text())["params"]
    )
    assert set(keys.official_state(planner.state_dict())) == set(official_state(name))
    return planner.eval()


def inputs(lidar: bool = False) -> dict[str, Tensor]:
    arrays = {"camera": recipe.camera(), "status": recipe.status()}
    if lidar:
        arrays["lidar"] = recipe.lidar()
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def samples(negatives: str | None = None, empty: bool = False, batch: int = 2) -> list[PlanSample]:
    name = "target/trajectory" if batch == 2 else f"target/trajectory{batch}"
    plans = torch.from_numpy(recipe.trajectory(name, batch))
    states, labels = map(torch.from_numpy, recipe.agents(batch, empty=empty))
    bev = torch.from_numpy(recipe.bev_map(batch))
    made = []
    for row in range(batch):
        sample = PlanSample(metainfo={"token": f"scene{row}"})
        sample.gt = BaseDataElement(
            trajectory=plans[row],
            agent_states=states[row],
            agent_labels=labels[row],
            bev_semantic_map=bev[row],
        )
        if negatives is not None:
            plan = torch.from_numpy(recipe.negatives(negatives, batch))[row : row + 1]
            sample.negatives = BaseDataElement(plans=plan, valid=plan.abs().sum((1, 2)) > 0)
        made.append(sample)
    return made


class Trace:
    """Records the features that pass through the backbone."""

    def __init__(self, planner: HeadPlanner) -> None:
        self.features: dict[str, Tensor] = {}
        backbone = planner.backbone
        self.handles = [
            stage.register_forward_hook(lambda _, given, result, i=i: self.stage(i, given, result))
            for i, stage in enumerate(backbone.fusions)
        ]
        self.handles.append(backbone.register_forward_hook(lambda _, given, result: self.backbone(result)))

    def stage(self, i: int, given: tuple[Tensor, Tensor], result: tuple[Tensor, Tensor]) -> None:
        self.features |= {f"pre_img_{i}": given[0], f"pre_lid_{i}": given[1]}
        self.features |= {f"fused_img_{i}": result[0], f"fused_lid_{i}": result[1]}

    def backbone(self, result: FusedFeatures) -> None:
        assert result.top_down is not None
        self.features |= {"fused": result.bev, "bev_upscale": result.top_down}


def run_transfuser(golden: Golden, planner: HeadPlanner, lidar: bool = False) -> SceneTokens:
    """Check features and outputs; return the tokens."""
    trace = Trace(planner)
    with torch.no_grad():
        tokens = planner.encode(inputs(lidar))
    golden.check(trace.features, "backbone/")
    query = planner.decoder.query_embedding.weight.expand(2, -1, -1)
    golden.check({"query": query, "keyval": tokens.memory, "out": tokens.queries}, "decoder/")
    with torch.no_grad():
        golden.check(planner.trajectory_head.tensors(planner.trajectory_head(tokens)))
        golden.check(planner.agent_head(tokens))
        golden.check(planner.bev_head(tokens))
    return tokens


def check_agent_losses(golden: Golden, planner: HeadPlanner, tokens: SceneTokens, latent: bool) -> None:
    """Unweighted class and box terms under the config's matching weights and under 10 and 1."""
    criterion = planner.agent_head.criterion
    with torch.no_grad():
        output = planner.agent_head(tokens)
    for empty in (False, True):
        states, labels = map(torch.from_numpy, recipe.agents(empty=empty))
        if latent:
            labels = visible(states, labels, CAMERA_FIELD_OF_VIEW)
        for suffix, weights in (
            ("", (criterion.class_weight, criterion.box_weight)),
            ("_w10_1", (10.0, 1.0)),
        ):
            given = (output["agent_states"], output["agent_labels"], states, labels)
            terms = agent_losses(*given, match_agents(*given, *weights))
            golden.check(
                {
                    f"agent_ce{suffix}/empty={int(empty)}": terms[0],
                    f"agent_l1{suffix}/empty={int(empty)}": terms[1],
                }
            )


@pytest.mark.parametrize(
    ("name", "config", "latent"),
    [("navsim_ltf", "ltf_r34.py", True), ("navsim_transfuser", "transfuser_r34.py", False)],
)
def test_navsim_transfuser_and_ltf(name: str, config: str, latent: bool) -> None:
    golden = Golden(name)
    planner = build(config, ABSOLUTE_KEYS, name)
    tokens = run_transfuser(golden, planner, lidar=not latent)
    check_agent_losses(golden, planner, tokens, latent)
    for empty in (False, True):
        targets = samples(empty=empty)
        with torch.no_grad():
            terms = planner.trajectory_head.loss(planner.trajectory_head(tokens), targets)
            terms |= planner.agent_head.loss(tokens, targets) | planner.bev_head.loss(tokens, targets)
        golden.check_one(f"total/empty={int(empty)}", sum(terms.values()))
    golden.check({"trajectory_l1": terms["loss_trajectory"] / 10, "bev_ce": terms["loss_bev_semantic"] / 10})
    golden.finish()


@pytest.mark.parametrize(
    ("name", "keys", "prediction"),
    [("bd_ltf_delta", DELTA_KEYS, "delta_trajectory"), ("bd_ltf_abs", ABSOLUTE_KEYS, "trajectory")],
)
def test_ltf_star_and_beyonddrive(name: str, keys: KeyMap, prediction: str) -> None:
    golden = Golden(name)
    head: dict[str, Any] = {"type": "DeltaTrajectoryHead"}
    if name == "bd_ltf_abs":
        head = {"type": "AbsoluteTrajectoryHead", "hidden": 256, "activation": "SiLU"}
    repulsive = {
        "type": "RepulsiveHead",
        "head": head,
        "loss": {"type": "RepulsiveDistanceLoss", "weight": 5.0, "valid_rule": "sum_positive"},
    }
    planner = build("ltf-delta_r34.py", keys, name, trajectory_head={"_delete_": True, **repulsive})
    tokens = run_transfuser(golden, planner)
    check_agent_losses(golden, planner, tokens, latent=True)
    with torch.no_grad():
        plan = planner.trajectory_head(tokens)
        bev_loss = planner.bev_head.loss(tokens, samples())["loss_bev_semantic"]
    for case in ("nobd", "bd_all", "bd_none", "bd_mixed", "bd_negsum", "bd_allneg"):
        targets = samples(None if case == "nobd" else case.removeprefix("bd_"))
        encoded = plan.encoded.clone().requires_grad_()
        module = planner.trajectory_head.bare if case == "nobd" else planner.trajectory_head
        terms = module.loss(PlanOutput(trajectory=plan.trajectory, encoded=encoded), targets)
        assert planner.agent_head.loss(tokens, targets) == {}
        total = terms["loss_trajectory"] + bev_loss + terms.get("loss_repulsive", 0.0)
        total.backward()
        golden.check_one(f"{case}/{prediction}", encoded.grad)
        values = {
            "trajectory_loss": terms["loss_trajectory"],
            "bev_semantic_loss": bev_loss,
            "agent_class_loss": 0.0,
            "agent_box_loss": 0.0,
            "rde_loss": terms.get("loss_repulsive", 0.0),
            "loss": total,
        }
        if case in ("bd_none", "bd_allneg"):
            # The reference takes a mean over nothing: NaN where the term must be absent.
            for key in ("rde_loss", "loss"):
                assert math.isnan(golden.arrays[f"loss/{case}/{key}"])
                golden.seen.add(f"loss/{case}/{key}")
            assert values.pop("rde_loss").item() == 0.0
            assert values.pop("loss").item() == pytest.approx(
                float(golden.arrays["loss/nobd/loss"]), rel=1e-5
            )
        golden.check(values, f"{case}/")
    if name == "bd_ltf_delta":
        target = torch.from_numpy(recipe.trajectory("target/trajectory"))
        head_module = planner.trajectory_head
        golden.check_one("diff_traj(target)", head_module.encode(target))
        golden.check_one("cumsum(diff(target))", head_module.decode(head_module.encode(target)))
        golden.check_one(
            "diff_traj(negsum)", head_module.encode(torch.from_numpy(recipe.negatives("negsum")))
        )
    golden.finish()


VARIANTS: dict[str, dict[str, Any]] = {
    "default(5step,24prop,cfg0.5,noise0.2)": {"num_proposals": 24, "guidance": 0.5},
    "eval(5step,1prop,cfg1.0,noise0.2)": {"num_proposals": 1},
    "pool(5step,64prop,cfg0.5,noise0.4)": {"num_proposals": 64, "guidance": 0.5, "noise": 0.4},
    "predv(3step,4prop,cfg2.0)": {"num_proposals": 4, "steps": 3, "guidance": 2.0, "prediction": "v"},
}


def draws(index: int, *shape: int, kind: str = "normal") -> Tensor:
    return torch.from_numpy(recipe.noise("bd_flowpolicy", index, shape, kind))


def test_flow_policy() -> None:
    golden = Golden("bd_flowpolicy")
    planner = build(
        "flow_policy_r34.py", FLOW_POLICY_KEYS, "bd_flowpolicy", trajectory_head__flow_weight=10.0
    )
    head = planner.trajectory_head
    assert isinstance(head, FlowHead)
    with torch.no_grad():
        tokens = planner.encode(inputs())
        golden.check({"context_query": head.context(tokens), "bev_upscale": tokens.bev})
        for variant, settings in VARIANTS.items():
            noise = draws(0, 2 * settings["num_proposals"], 8, 4).unflatten(0, (2, -1))
            with patch.multiple(head, **settings):
                output = head(tokens, draws=noise)
            golden.check(
                {"pred_trajectorys": output.proposals, "trajectory": output.trajectory}, f"{variant}/"
            )
        z = torch.from_numpy(recipe.normal("input/flow_z", (4, 8, 4))).float()
        context = torch.from_numpy(recipe.normal("input/flow_context", (4, 30, 256))).float()
        time = torch.tensor([0.0, 0.25, 0.5, 0.95])
        golden.check_one("dit(z,t,context)", head.denoiser(z[:, None], time, context)[:, 0])
        for prediction in ("x", "v"):
            with patch.object(head, "prediction", prediction):
                check_flow_losses(golden, planner, tokens)
    golden.finish()


def check_flow_losses(golden: Golden, planner: HeadPlanner, tokens: SceneTokens) -> None:
    head = planner.trajectory_head
    flag = int(head.prediction == "x")
    bev = planner.bev_head.loss(tokens, samples())["loss_bev_semantic"]
    context = torch.from_numpy(recipe.normal("input/flow_context32", (32, 30, 256))).float()
    many = SceneTokens(queries=torch.cat([context[:, :1], context], dim=1), status=torch.zeros(32, 8))
    for phase, training in (("eval", False), ("train_head", True)):
        head.train(training)
        given = FlowDraws(draws(0, 2), draws(1, 2, 8, 4), draws(2, 2, kind="uniform") if training else None)
        loss = head.loss(head.training_output(tokens, samples(), draws=given), samples())["loss_flow"]
        golden.check(
            {"loss": loss + bev, "flowmatching_loss": loss, "bev_semantic_loss": bev},
            f"{phase}/pred_x={flag}/",
        )
    for drop in (False, True):
        head.train(drop)
        given = FlowDraws(draws(0, 32), draws(1, 32, 8, 4), draws(2, 32, kind="uniform") if drop else None)
        targets = samples(batch=32)
        loss = head.loss(head.training_output(many, targets, draws=given), targets)["loss_flow"]
        golden.check_one(f"fm32/pred_x={flag}/drop={int(drop)}", loss / head.flow_weight)
    head.eval()


def test_ego_status_mlp() -> None:
    golden = Golden("ego_status_mlp")
    planner = build("ego_mlp.py", EGO_MLP_KEYS, "ego_status_mlp")
    status = torch.from_numpy(golden.arrays["in/ego_status"])
    status = torch.cat([status[:, 4:], status[:, :4]], dim=1)  # the golden input has the command last
    with torch.no_grad():
        golden.check_one("trajectory", planner({"status": status})["trajectory"])
        golden.check_one("l1", planner({"status": status}, samples(), mode="loss")["loss_trajectory"])
    golden.finish()


@pytest.mark.parametrize("name", ["navsim_transfuser", "bd_flowpolicy"])
def test_wrong_planner_is_refused(name: str) -> None:
    keys = FLOW_POLICY_KEYS if name == "navsim_transfuser" else ABSOLUTE_KEYS
    with pytest.raises(ValueError, match="is not a parameter of this planner"):
        keys.native_state({key: torch.zeros(1) for key in official_state(name)})
